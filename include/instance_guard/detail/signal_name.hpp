// layer 1: the name of a signal.
//
// strsignal(3) is translated and not thread-safe, sigabbrev_np(3) is glibc's alone.
#pragma once

#include <signal.h>

#include <csignal>
#include <string>

#include "text.hpp"

namespace instance_guard::detail {

/// Whether it is a number that the system has a signal for.
inline bool is_signal(int number) noexcept {
  sigset_t set;
  return ::sigemptyset(&set) == 0 && ::sigaddset(&set, number) == 0;
}

/// "SIGTERM" for SIGTERM; null for a real-time or unknown signal. Async-signal-safe.
constexpr const char* standard_signal_name(int number) noexcept {
  switch (number) {
    case SIGHUP: return "SIGHUP";
    case SIGINT: return "SIGINT";
    case SIGQUIT: return "SIGQUIT";
    case SIGILL: return "SIGILL";
    case SIGTRAP: return "SIGTRAP";
    case SIGABRT: return "SIGABRT";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGKILL: return "SIGKILL";
    case SIGUSR1: return "SIGUSR1";
    case SIGSEGV: return "SIGSEGV";
    case SIGUSR2: return "SIGUSR2";
    case SIGPIPE: return "SIGPIPE";
    case SIGALRM: return "SIGALRM";
    case SIGTERM: return "SIGTERM";
    case SIGCHLD: return "SIGCHLD";
    case SIGCONT: return "SIGCONT";
    case SIGSTOP: return "SIGSTOP";
    case SIGTSTP: return "SIGTSTP";
    case SIGTTIN: return "SIGTTIN";
    case SIGTTOU: return "SIGTTOU";
    case SIGURG: return "SIGURG";
    case SIGXCPU: return "SIGXCPU";
    case SIGXFSZ: return "SIGXFSZ";
    case SIGVTALRM: return "SIGVTALRM";
    case SIGPROF: return "SIGPROF";
    case SIGWINCH: return "SIGWINCH";
    case SIGIO: return "SIGIO";
    case SIGSYS: return "SIGSYS";
    default: return nullptr;
  }
}

/// As above, and "signal 40" where there is no name.
inline std::string signal_name(int number) {
  const char* name = standard_signal_name(number);
  return name != nullptr ? std::string(name) : joined({"signal ", std::to_string(number)});
}

}  // namespace instance_guard::detail
