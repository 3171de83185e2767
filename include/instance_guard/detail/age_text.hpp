// layer 2: durations as people read them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "unix_time.hpp"

namespace instance_guard::detail {

/// The two largest units: "7d 2h", "2h 5m", "4m 10s", "12s"; negative counts as 0s.
inline std::string age_text(std::chrono::seconds age, const char* between = " ") {
  struct unit {
    std::int64_t seconds;
    char letter;
  };
  constexpr unit units[] = {{86'400, 'd'}, {3'600, 'h'}, {60, 'm'}, {1, 's'}};
  std::int64_t rest = age.count() > 0 ? age.count() : 0;
  std::string text;
  int parts = 0;
  for (const unit& each : units) {
    const std::int64_t count = rest / each.seconds;
    rest %= each.seconds;
    if (parts == 0 && count == 0 && each.letter != 's') continue;
    if (parts == 1 && count == 0) break;
    if (parts > 0) text += between;
    text.append(std::to_string(count)).push_back(each.letter);
    if (++parts == 2) break;
  }
  return text;
}

/// How long ago `then` was; a time in the future (the clock was set) is 0s.
inline std::string age_since(std::chrono::system_clock::time_point then, const char* between = " ") {
  const std::int64_t now = unix_milliseconds(std::chrono::system_clock::now());
  return age_text(std::chrono::seconds((now - unix_milliseconds(then)) / 1000), between);
}

}  // namespace instance_guard::detail
