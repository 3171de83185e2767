#include "run_signals.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include "above_streams.hpp"

namespace tool {
namespace {

/// For the handler: a process has one inbox.
volatile int write_end = -1;

void handler(int number, siginfo_t* info, void*) {
  const int saved = errno;
  arrival note;
  note.number = number;
  note.from_kernel = info != nullptr && info->si_code > 0;
  note.sender = info != nullptr && info->si_code <= 0 ? info->si_pid : 0;
  // When the pipe is full there is enough to do.
  [[maybe_unused]] const ssize_t wrote = ::write(write_end, &note, sizeof note);
  errno = saved;
}

/// Those that a fault of the tool itself raises keep their default, as the two that can't be caught.
bool is_caught(int number) {
  for (const int other :
       {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGURG, SIGXCPU, SIGXFSZ, SIGPROF})
    if (number == other) return false;
  return true;
}

}  // namespace

signal_inbox::signal_inbox() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  for (int& each : ends) {
    each = above_streams(each);
    if (each < 0) throw std::system_error(errno, std::generic_category(), "pipe");
  }
  read_end_ = ends[0];
  write_end = ends[1];
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction before = {};
    if (!is_caught(number) || ::sigaction(number, nullptr, &before) != 0) continue;
    if (before.sa_handler == SIG_IGN) {
      ignored_.push_back(number);
      continue;
    }
    struct sigaction action = {};
    action.sa_sigaction = &handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    ::sigfillset(&action.sa_mask);
    ::sigaction(number, &action, nullptr);
  }
}

bool signal_inbox::take(arrival& out) noexcept {
  return ::read(read_end_, &out, sizeof out) == static_cast<ssize_t>(sizeof out);
}

void signal_inbox::note() const noexcept {
  const arrival nothing;
  [[maybe_unused]] const ssize_t wrote = ::write(write_end, &nothing, sizeof nothing);
}

bool signal_inbox::was_ignored(int number) const noexcept {
  return std::find(ignored_.begin(), ignored_.end(), number) != ignored_.end();
}

void signal_inbox::suffer(int number) const noexcept {
  if (number == SIGSTOP || number == SIGKILL) {
    ::raise(number);
    return;
  }
  struct sigaction fallback = {}, ours = {};
  fallback.sa_handler = SIG_DFL;
  ::sigaction(number, &fallback, &ours);
  sigset_t only, before;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::pthread_sigmask(SIG_UNBLOCK, &only, &before);
  ::raise(number);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::sigaction(number, &ours, nullptr);
}

}  // namespace tool
