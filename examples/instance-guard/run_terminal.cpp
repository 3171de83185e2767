#include "run_terminal.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

#include "above_streams.hpp"

namespace tool {

terminal_keeper::terminal_keeper() : terminal_(above_streams(::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC))) {
  if (!terminal_) return;
  was_in_front_ = ::tcgetpgrp(terminal_.get()) == ::getpgrp();
  known_ = ::tcgetattr(terminal_.get(), &settings_) == 0;
}

void terminal_keeper::restore(bool settings) const noexcept {
  if (!terminal_ || !was_in_front_) return;
  // Who changes a terminal from behind is stopped, unless it blocks that signal.
  sigset_t only, before;
  ::sigemptyset(&only);
  ::sigaddset(&only, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &only, &before);
  const pid_t front = ::tcgetpgrp(terminal_.get());
  const bool deserted = front > 1 && front != ::getpgrp() && ::kill(-front, 0) != 0 && errno == ESRCH;
  if (deserted) ::tcsetpgrp(terminal_.get(), ::getpgrp());
  if (settings && known_ && (deserted || front == ::getpgrp())) ::tcsetattr(terminal_.get(), TCSADRAIN, &settings_);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace tool
