// layer 2: bytes of strangers (command lines, names, file contents) made harmless to print.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace instance_guard::detail {

/// The length of the UTF-8 sequence at the start of `text` that a terminal only draws, or 0:
/// not valid UTF-8, a control character (C1 includes CSI), or a mark that reorders text or hides in it.
inline std::size_t drawable(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const std::size_t length = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length == 0 || first >= 0xf5 || text.size() < length) return 0;
  unsigned point = first & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    point = point << 6 | (byte(i) & 0x3fU);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool surrogate = point >= 0xd800 && point <= 0xdfff;
  const bool marks = (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
                     (point >= 0x2060 && point <= 0x206f) || point == 0xfeff || point == 0xad;
  return overlong || surrogate || marks || point < 0xa0 || point > 0x10ffff ? 0 : length;
}

/// `text` with '?' for each byte that a terminal would obey instead of draw.
inline std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = drawable(text);
    if (length == 0) {
      result += '?';
      text.remove_prefix(1);
    } else {
      result += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return result;
}

/// The same with the byte itself, as "\x1b": where a name is told that somebody may have to find.
inline std::string escaped(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = drawable(text);
    if (length == 0) {
      const auto value = static_cast<unsigned char>(text.front());
      result += {'\\', 'x', digits[value >> 4U], digits[value & 0xfU]};
    } else {
      result += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

}  // namespace instance_guard::detail
