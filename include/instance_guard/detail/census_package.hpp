// layer 4: what a directory runs, by its package.json, of which nothing is trusted: a regular file of
// the process's user, of the caller or of root, at most 64 KiB of it.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>

#include "census_path.hpp"

namespace instance_guard::detail {

/// Writes the string that an object of JSON has under `key`; empty: none. False: that can't be told,
/// as of a text that is cut, or of a string with an escape.
inline bool find_json_string(std::string_view text, std::string_view key, std::string& out) {
  out.clear();
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos || text[begin] != '{') return false;
  std::size_t depth = 0;
  std::string_view name;
  bool is_value = false, plain = true;
  for (std::size_t at = begin; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '{' || c == '[') ++depth;
    if (depth == 1 && (c == ':' || c == ',')) is_value = c == ':';
    if ((c == '}' || c == ']') && --depth == 0) return plain;
    if (c != '"') continue;
    const std::size_t first = ++at;
    while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
    if (at >= text.size()) return false;
    if (depth != 1) continue;
    const std::string_view string = text.substr(first, at - first);
    if (string.find_first_of(std::string_view("\\\0", 2)) != std::string_view::npos && (!is_value || name == key))
      plain = false;
    if (is_value && name == key) out = string;
    if (is_value) continue;
    name = string;
    if (name == key) out.clear();  // of several the last counts
  }
  return false;
}

/// The file that package.json names as the one of a directory; `directory` is without links. False:
/// there is one that does not tell.
inline bool read_package_main(const std::string& directory, uid_t user, const slow_places& slow, std::string& out) {
  constexpr std::size_t most = 65'536;
  const std::string file = directory + "/package.json";
  out.clear();
  struct stat facts = {};
  if (slow.contain(file)) return false;
  if (::lstat(file.c_str(), &facts) != 0) return errno == ENOENT;
  bool foreign = false;
  const std::string text = read_checked_file(file, most, user, foreign);
  return find_json_string(text, "main", out);
}

}  // namespace instance_guard::detail
