// layer 4: what happens on the way out: by a signal, or by exit(3).
//
// on_signal() and everything it calls are async-signal-safe: fixed atomics, raw system calls,
// no allocation, no locks. tests/symbols checks what it links to.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "../platform/platform.hpp"
#include "group_slot.hpp"
#include "lock_slot.hpp"
#include "stop_state.hpp"

namespace instance_guard::detail {

/// Service managers and terminals deliver one stop twice, some microseconds apart; what comes
/// this much later is meant: force.
inline constexpr std::int64_t second_signal_after = 250'000'000;  // ns

struct exit_state {
  std::atomic<pid_t> owner{0};   ///< the process that installed the handlers
  std::atomic<int> armed{0};     ///< guards that are complete; 0: a signal ends the process at once
  std::atomic<int> graceful{0};  ///< how many of the live cleanups are graceful
  std::atomic<std::int64_t> first_at{0};
  std::atomic<bool> at_exit_registered{false};
};

inline constinit exit_state the_exit;

/// Ends the children, then lets the names go. Whatever began this before goes on undisturbed:
/// each group and each lock is ended once. Async-signal-safe.
inline void end_everything() noexcept {
  groups_goodbye_all();
  lock_release_all_unkept();
}

/// Ends the process by `number` as if nobody had caught it, so that its parent sees the truth.
/// Async-signal-safe.
[[noreturn]] inline void die_by(int number) noexcept {
  struct sigaction fallback = {};
  fallback.sa_handler = SIG_DFL;
  ::sigaction(number, &fallback, nullptr);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  ::raise(number);
  // Still here: as pid 1 of a container the kernel drops signals that nobody handles.
  platform::sys::exit_group(128 + number);
}

/// The handler. Async-signal-safe, leaves errno as it was.
inline void on_signal(int number) noexcept {
  const int saved = errno;
  // A forked copy inherits the handler, not the duty.
  if (the_exit.owner.load(std::memory_order_relaxed) != platform::sys::getpid()) die_by(number);
  if (the_exit.armed.load(std::memory_order_acquire) > 0) {
    if (the_exit.graceful.load(std::memory_order_relaxed) > 0) {
      const std::int64_t now = platform::sys::monotonic_now();
      std::int64_t first = 0;
      if (the_exit.first_at.compare_exchange_strong(first, now)) {
        the_stop.request();
        errno = saved;
        return;
      }
      if (now - first < second_signal_after) {
        errno = saved;
        return;
      }
    }
    end_everything();
  } else if (!lock_has_duty()) {
    end_everything();  // of a guard that is not complete: else its file would say that it was killed
  }
  die_by(number);
}

/// exit(3) runs no destructors of main's objects: this ends them. A forked copy that exits
/// through its parent's handlers does nothing (the slots know their owner).
inline void at_exit() noexcept {
  if (the_exit.owner.load(std::memory_order_relaxed) == platform::sys::getpid()) end_everything();
}

/// True if exit(3) will be noticed. False: out of memory.
inline bool register_at_exit() noexcept {
  if (the_exit.at_exit_registered.exchange(true)) return true;
  if (std::atexit([] { at_exit(); }) == 0) return true;
  the_exit.at_exit_registered.store(false);
  return false;
}

}  // namespace instance_guard::detail
