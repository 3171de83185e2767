#include "text.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <instance_guard/detail/printable_text.hpp>
#include <iterator>
#include <system_error>

namespace tool {
namespace {

// The tool and the library of one version agree on what is harmless.
using instance_guard::detail::drawable;

/// One character at the start of a text: its bytes (0: none that may be drawn), and its columns.
struct drawn {
  std::size_t bytes = 0;
  std::size_t columns = 0;
};

bool is_wide(std::uint32_t point) {
  return (point >= 0x1100 && point <= 0x115f) || (point >= 0x2e80 && point <= 0xa4cf) ||
         (point >= 0xac00 && point <= 0xd7a3) || (point >= 0xf900 && point <= 0xfaff) ||
         (point >= 0xfe30 && point <= 0xfe6f) || (point >= 0xff00 && point <= 0xff60) ||
         (point >= 0xffe0 && point <= 0xffe6) || (point >= 0x1f300 && point <= 0x1faff) ||
         (point >= 0x20000 && point <= 0x3fffd);
}

drawn first_of(std::string_view text) {
  const std::size_t bytes = drawable(text);
  if (bytes < 2) return {bytes, bytes};
  std::uint32_t point = static_cast<unsigned char>(text[0]) & (0x7fU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) point = point << 6U | (static_cast<unsigned char>(text[i]) & 0x3fU);
  return {bytes, is_wide(point) ? 2U : 1U};
}

std::string formatted(std::chrono::system_clock::time_point at, const char* format, bool utc) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm parts = {};
  if ((utc ? ::gmtime_r(&seconds, &parts) : ::localtime_r(&seconds, &parts)) == nullptr) return "?";
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

}  // namespace

std::string shown(std::string_view text) { return instance_guard::detail::escaped(text); }

std::string command_line(const std::vector<std::string>& arguments) {
  constexpr std::string_view plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-";
  std::string result;
  for (const std::string& each : arguments) {
    if (!result.empty()) result += ' ';
    if (!each.empty() && each.find_first_not_of(plain) == std::string::npos) {
      result += each;
      continue;
    }
    const bool escaped = shown(each) != each;
    std::string word;
    for (const char c : each) {
      if (c == '\'') word += escaped ? "\\'" : "'\\''";
      else if (c == '\\' && escaped) word += "\\\\";
      else word += c;
    }
    result += escaped ? "$'" + shown(word) : "'" + word;
    result += '\'';
  }
  return result;
}

std::size_t width(std::string_view text) {
  std::size_t result = 0;
  while (!text.empty()) {
    const drawn first = first_of(text);
    result += first.columns;
    text.remove_prefix(first.bytes == 0 ? 1 : first.bytes);
  }
  return result;
}

std::string cut(std::string_view text, std::size_t columns) {
  if (width(text) <= columns) return std::string(text);
  std::string result;
  std::size_t used = 0;
  while (!text.empty() && columns > 0) {
    const drawn first = first_of(text);
    if (used + first.columns > columns - 1) break;
    used += first.columns;
    result += text.substr(0, first.bytes);
    text.remove_prefix(first.bytes == 0 ? 1 : first.bytes);
  }
  return columns > 0 ? result + "…" : result;
}

std::string cell(std::string_view text, std::size_t columns) {
  std::string result = cut(text, columns);
  const std::size_t used = width(result);
  if (used < columns) result.append(columns - used, ' ');
  return result;
}

std::string age(std::chrono::seconds how_long, const char* between) {
  constexpr struct {
    std::int64_t seconds;
    char letter;
  } units[] = {{86'400, 'd'}, {3'600, 'h'}, {60, 'm'}, {1, 's'}};
  std::int64_t rest = how_long.count() > 0 ? how_long.count() : 0;
  std::string text;
  for (const auto& each : units) {
    const std::int64_t count = rest / each.seconds;
    rest %= each.seconds;
    if (text.empty()) {
      if (count > 0 || each.letter == 's') text = std::to_string(count) + each.letter;
    } else {
      if (count > 0) text += between + std::to_string(count) + each.letter;
      break;
    }
  }
  return text;
}

std::string age_since(std::chrono::system_clock::time_point then, const char* between) {
  return age(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - then), between);
}

std::string local_time(std::chrono::system_clock::time_point at) { return formatted(at, "%Y-%m-%d %H:%M", false); }

std::string utc_time(std::chrono::system_clock::time_point at) { return formatted(at, "%Y-%m-%dT%H:%M:%SZ", true); }

std::string memory(std::uint64_t bytes) {
  // As the library rounds in a headline.
  constexpr const char* units[] = {" B", " kB", " MB", " GB", " TB"};
  std::size_t unit = 0;
  std::uint64_t one = 1;
  for (; unit + 1 < std::size(units) && bytes * 2 >= one * 1999; ++unit) one <<= 10;
  const std::uint64_t tenths = (bytes * 10 + one / 2) / one;
  if (unit >= 3 && tenths < 100) return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + units[unit];
  return std::to_string((bytes + one / 2) / one) + units[unit];
}

std::string row(std::string_view label, std::string_view text, std::size_t indent, std::size_t columns) {
  const std::size_t room = columns - indent;
  std::string result = "  " + cell(label, indent - 2);
  for (;;) {
    // As many words as fit; a word that is too long for any line is broken.
    std::size_t end = 0;
    std::size_t used = 0;
    std::size_t blank = std::string_view::npos;
    while (end < text.size()) {
      const drawn first = first_of(text.substr(end));
      if (used + first.columns > room) break;
      if (text[end] == ' ') blank = end;
      used += first.columns;
      end += first.bytes == 0 ? 1 : first.bytes;
    }
    if (end < text.size() && text[end] == ' ') blank = end;
    if (end < text.size() && blank != std::string_view::npos && blank > 0) end = blank;
    std::string_view line = text.substr(0, end);
    while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
    result += line;
    result += '\n';
    text.remove_prefix(end);
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    if (text.empty()) return result;
    result.append(indent, ' ');
  }
}

std::string counted(std::size_t number, std::string_view one, std::string_view many) {
  return std::to_string(number) + " " + std::string(number == 1 ? one : many);
}

std::size_t terminal_columns(int descriptor) {
  winsize size = {};
  if (::isatty(descriptor) == 0) return 0;
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::size_t columns() { return std::clamp<std::size_t>(terminal_columns(STDOUT_FILENO), 80, 120); }

std::string coloured(std::string_view text, int colour) {
  const char* terminal = std::getenv("TERM");
  const char* none = std::getenv("NO_COLOR");
  if (::isatty(STDOUT_FILENO) == 0 || terminal == nullptr || std::string_view(terminal) == "dumb" ||
      (none != nullptr && *none != '\0'))
    return std::string(text);
  return "\x1b[" + std::to_string(colour) + "m" + std::string(text) + "\x1b[0m";
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(STDOUT_FILENO, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw std::system_error(errno, std::system_category(), "stdout");
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

}  // namespace tool
