// What the tool said, and how it ended.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "scene.hpp"
#include "tool.hpp"

namespace support {

struct tool_result {
  int code = -1;  // the exit code; -1: it did not end by itself
  std::string out = {};
  bool says(const std::string& text) const { return out.find(text) != std::string::npos; }
};

/// Runs "instance-guard ARGUMENTS" to its end; with `merge_err` what it says to stderr is in `out`.
inline tool_result run_tool(const scene& s, std::vector<std::string> arguments, start_options options = {}) {
  arguments.insert(arguments.begin(), INSTANCE_GUARD_TOOL);
  options.environment.push_back("TZ=UTC");
  program tool = s.start(std::move(arguments), std::move(options));
  tool_result result;
  tool.in().reset();
  result.out = tool.read_all();
  const auto status = tool.wait();
  if (status) result.code = status->code();
  return result;
}

/// The columns that a line takes, if each character takes one.
inline std::size_t columns_of(const std::string& line) {
  std::size_t count = 0;
  for (const char c : line)
    if ((static_cast<unsigned char>(c) & 0xc0U) != 0x80) ++count;
  return count;
}

inline bool fits(const std::string& text, std::size_t columns = 80) {
  for (const std::string& line : lines_of(text))
    if (columns_of(line) > columns) return false;
  return true;
}

}  // namespace support
