// Starting the tool `instance-guard`.
#pragma once

#include <instance_guard/process_group_types.hpp>
#include <string>
#include <vector>

namespace support {

inline const instance_guard::exit_status no_status = {};

/// "instance-guard run OPTIONS -- COMMAND".
inline std::vector<std::string> run_words(const std::vector<std::string>& options,
                                          const std::vector<std::string>& command) {
  std::vector<std::string> words = {INSTANCE_GUARD_TOOL, "run"};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end == std::string::npos ? text.size() : end + 1;
  }
  return lines;
}

}  // namespace support
