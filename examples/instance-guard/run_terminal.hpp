// The terminal that the tool was started from, as it was then.
#pragma once

#include <instance_guard/file_descriptor.hpp>
#include <termios.h>

namespace tool {

class terminal_keeper {
 public:
  terminal_keeper();

  /// There is a controlling terminal.
  explicit operator bool() const noexcept { return static_cast<bool>(terminal_); }

  /// Puts the foreground back, if the command had taken it and left nobody there; with `settings`
  /// also the settings, if the tool is in the foreground: a command that was killed could not.
  void restore(bool settings) const noexcept;

 private:
  instance_guard::file_descriptor terminal_;
  termios settings_ = {};
  bool known_ = false;
  bool was_in_front_ = false;
};

}  // namespace tool
