// Reading what a child of a process_group says.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <instance_guard/process_group.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace support {

/// "setsid ignore sleep" as a list.
inline std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

inline std::string read_all(const instance_guard::file_descriptor& from) {
  std::string text;
  char block[4096];
  for (ssize_t size = 0; (size = ::read(from.get(), block, sizeof block)) > 0;)
    text.append(block, static_cast<std::size_t>(size));
  return text;
}

/// The next line, without its end; empty at the end of the stream.
inline std::string read_line(const instance_guard::file_descriptor& from) {
  std::string line;
  char byte = 0;
  while (::read(from.get(), &byte, 1) == 1 && byte != '\n') line += byte;
  return line;
}

/// Waits for the helper's "ready" and gives the pid in it; 0 if it never comes.
inline pid_t await_ready(const instance_guard::file_descriptor& from) {
  constexpr std::string_view start = "ready pid=";
  for (std::string line = read_line(from); !line.empty(); line = read_line(from))
    if (line.starts_with(start)) return std::atoi(line.c_str() + start.size());
  return 0;
}

/// The value of a "key=value" line of the helper's `show`.
inline std::string value_of(const std::string& shown, const std::string& key) {
  const std::string start = "\n" + key + "=";
  const std::string text = "\n" + shown;
  const std::size_t at = text.find(start);
  if (at == std::string::npos) return "(missing)";
  const std::size_t from = at + start.size();
  return text.substr(from, text.find('\n', from) - from);
}

}  // namespace support
