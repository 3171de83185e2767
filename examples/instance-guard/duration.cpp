#include "duration.hpp"

#include <cstdint>
#include <instance_guard/error.hpp>
#include <limits>

namespace tool {
namespace {

struct unit {
  std::string_view name;
  std::int64_t milliseconds;
};

/// Largest first, which is also the order in which they may follow each other.
constexpr unit units[] = {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};

}  // namespace

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  if (text == "forever") return instance_guard::no_limit;
  if (text == "0") return std::chrono::milliseconds(0);
  std::int64_t total = 0;
  std::size_t next_unit = 0;
  if (text.empty()) return {};
  while (!text.empty()) {
    std::int64_t number = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
      if (number > (most - 9) / 10) return {};
      number = number * 10 + (text[digits] - '0');
    }
    std::size_t end = digits;
    while (end < text.size() && (text[end] < '0' || text[end] > '9')) ++end;
    const std::string_view name = text.substr(digits, end - digits);
    std::size_t found = next_unit;
    while (found < std::size(units) && units[found].name != name) ++found;
    if (digits == 0 || found == std::size(units)) return {};
    next_unit = found + 1;
    if (number > (most - total) / units[found].milliseconds) return {};
    total += number * units[found].milliseconds;
    text.remove_prefix(end);
  }
  // The largest number means "for ever" to the library.
  if (total == most) return {};
  return std::chrono::milliseconds(total);
}

std::string bad_duration(std::string_view text) {
  return "'" + std::string(text.substr(0, 40)) + "' is no duration: 250ms, 5s, 2m, 1h30m, 7d or forever";
}

}  // namespace tool
