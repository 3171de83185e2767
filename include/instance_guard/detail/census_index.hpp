// layer 4: whether a file is one of a checkout's, by the checkout's index (gitformat-index(5)).
//
// A home directory may be a checkout of settings: what merely lies in it has nothing to do with it.
// The text is not trusted: each length is checked against what is there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "census_words.hpp"

namespace instance_guard::detail {

enum class is_tracked { no, yes, unknown };

/// The number of four bytes, most significant first.
constexpr std::uint32_t index_number(std::string_view text, std::size_t at) noexcept {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(text[at + i]);
  return value;
}

/// Calls `visit(name, entry)` with each entry of the text of an index, where `entry` begins with its
/// times, until it returns true. `hash_size`: 20 or 32 bytes. yes: it did; unknown: no such text, or
/// one that is not all of the index.
template <class Visitor>
is_tracked visit_index(std::string_view text, std::size_t hash_size, Visitor visit) {
  if (text.size() < 12 || !starts_with(text, "DIRC")) return is_tracked::unknown;
  const std::uint32_t version = index_number(text, 4);
  const std::uint32_t count = index_number(text, 8);
  if (version < 2 || version > 4) return is_tracked::unknown;
  std::size_t at = 12;
  std::string name;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::size_t begin = at;
    at += 40 + hash_size + 2;
    if (at + 2 > text.size()) return is_tracked::unknown;
    if (version >= 3 && (static_cast<unsigned char>(text[at - 2]) & 0x40U) != 0) at += 2;
    if (version < 4) {
      name.clear();
    } else {
      // How much of the name before is not part of this one, in groups of seven bits.
      std::size_t cut = 0;
      for (bool more = true, first = true; more; first = false) {
        if (at >= text.size() || cut > text.size()) return is_tracked::unknown;
        const unsigned char byte = static_cast<unsigned char>(text[at++]);
        cut = (first ? 0 : (cut + 1) << 7) + (byte & 0x7fU);
        more = (byte & 0x80U) != 0;
      }
      if (cut > name.size()) return is_tracked::unknown;
      name.resize(name.size() - cut);
    }
    const std::size_t end = text.find('\0', at);
    if (end == std::string_view::npos) return is_tracked::unknown;
    name += text.substr(at, end - at);
    at = version < 4 ? begin + ((end - begin) / 8 + 1) * 8 : end + 1;
    if (visit(std::string_view(name), text.substr(begin, 40))) return is_tracked::yes;
  }
  // A split index has the rest of its entries in another file.
  for (; at + 8 <= text.size() && text.size() - at > hash_size; at += 8 + index_number(text, at + 4))
    if (text.substr(at, 4) == "link") return is_tracked::unknown;
  return is_tracked::no;
}

/// Whether `path` is an entry of the text of an index, or a directory of one; empty: the root.
inline is_tracked find_in_index(std::string_view text, std::string_view path, std::size_t hash_size) {
  return visit_index(text, hash_size, [&](std::string_view name, std::string_view) {
    return path.empty() || name == path ||
           (name.size() > path.size() && starts_with(name, path) && name[path.size()] == '/');
  });
}

/// When the last of the files of an index was written, moved or made, in seconds, as git knows it from
/// when it looked last. INT64_MAX: that can't be told.
inline std::int64_t newest_in_index(std::string_view text, std::size_t hash_size) {
  std::int64_t newest = 0;
  const is_tracked whole = visit_index(text, hash_size, [&](std::string_view, std::string_view entry) {
    // A tool may set the time of modification back, but not that of the change (which some leave out).
    newest = std::max(newest, std::int64_t{std::max(index_number(entry, 0), index_number(entry, 8))});
    return false;
  });
  return whole == is_tracked::no ? newest : INT64_MAX;
}

}  // namespace instance_guard::detail
