// layer 4: patterns of the caller's, matched against command lines of strangers.
//
// POSIX ones: std::regex recurses for each character, and a command line may have 128 KiB.
#pragma once

#include <regex.h>

#include <string>

#include "census_view.hpp"

namespace instance_guard::detail {

class [[nodiscard]] command_pattern {
 public:
  explicit command_pattern(const std::string& text) noexcept
      : usable_(text.find('\0') == std::string::npos &&
                ::regcomp(&compiled_, text.c_str(), REG_EXTENDED | REG_NOSUB) == 0) {}
  command_pattern(const command_pattern&) = delete;
  command_pattern& operator=(const command_pattern&) = delete;
  ~command_pattern() {
    if (usable_) ::regfree(&compiled_);
  }

  /// False: it is no regular expression.
  explicit operator bool() const noexcept { return usable_; }

  bool matches(const census_process& of) const {
    if (!usable_ || of.own_arguments().empty()) return false;
    const std::string text = joined(of.own_arguments(), 4096);
    return ::regexec(&compiled_, text.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t compiled_ = {};
  bool usable_ = false;
};

}  // namespace instance_guard::detail
