// layer 3: locks and fork: one gate for everything that changes them.
//
// A fork in the middle of another thread's acquisition would give the child a lock nobody knows
// of; so fork waits at the gate, and the child closes what it inherited. A fork that runs no
// handlers (a raw clone) is told by the wiped page; see lock_slot.hpp.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "../platform/platform.hpp"
#include "lock_slot.hpp"

namespace instance_guard::detail {

struct lock_process_state {
  std::mutex gate;                        ///< held for each attempt, each change, and across fork
  bool prepared = false;                  ///< guarded by the gate
  std::atomic<bool> handing_over{false};  ///< the next fork's child takes the locks along
};
inline constinit lock_process_state lock_process;

/// What is left of the parent's locks in a forked child: nothing.
inline void drop_inherited_locks() noexcept {
  for (lock_slot& slot : lock_slots) {
    if (slot.state.load(std::memory_order_relaxed) == lock_slot::free) continue;
    close_slot_files(slot);
    end_change(slot, lock_slot::free);
  }
  if (unsigned* page = lock_owner_page.load(std::memory_order_relaxed)) *page = 1;
}

inline void before_fork() noexcept { lock_process.gate.lock(); }
inline void after_fork_in_parent() noexcept { lock_process.gate.unlock(); }
inline void after_fork_in_child() noexcept {
  if (!lock_process.handing_over.load(std::memory_order_relaxed)) drop_inherited_locks();
  lock_process.gate.unlock();
}

/// Registers the fork handlers and makes the owner's page, once a process. The gate is held.
/// 0, or a negated errno.
inline int prepare_process() noexcept {
  if (is_forked_copy()) drop_inherited_locks();  // a raw clone that takes a lock of its own
  if (lock_process.prepared) return 0;
  if (lock_owner_page.load(std::memory_order_relaxed) == nullptr) {
    if (unsigned* page = platform::owner_page()) {
      *page = 1;
      lock_owner_page.store(page, std::memory_order_release);
    }
  }
  const int result =
      ::pthread_atfork([] { before_fork(); }, [] { after_fork_in_parent(); }, [] { after_fork_in_child(); });
  if (result != 0) return -result;
  // exit(3) runs no destructors of main's objects. Failing that the file stays, as after a crash.
  std::atexit([] { lock_release_all_unkept(); });
  lock_process.prepared = true;
  return 0;
}

/// The gate, and no signals: no handler meets a lock half changed, no SIGXFSZ ends the program.
/// What was sent meanwhile comes when it is over, but for a SIGXFSZ that was our own doing.
class lock_change_scope {
 public:
  lock_change_scope() noexcept {
    // 32 and 33 belong to libc (cancellation, setuid in all threads).
    constexpr auto libc_own = platform::sys::signal_bit(32) | platform::sys::signal_bit(33);
    platform::sys::set_signal_mask(platform::sys::all_signals & ~libc_own, &before_);
    ::sigset_t pending;
    had_file_size_signal_ = ::sigpending(&pending) == 0 && ::sigismember(&pending, SIGXFSZ) == 1;
    lock_process.gate.lock();
  }
  ~lock_change_scope() {
    lock_process.gate.unlock();
    if (file_too_large_ && !had_file_size_signal_) consume_file_size_signal();
    platform::sys::set_signal_mask(before_);
  }
  lock_change_scope(const lock_change_scope&) = delete;
  lock_change_scope& operator=(const lock_change_scope&) = delete;

  /// A write was refused with EFBIG.
  void file_too_large() noexcept { file_too_large_ = true; }

 private:
  static void consume_file_size_signal() noexcept {
    ::sigset_t pending;
    if (::sigpending(&pending) != 0 || ::sigismember(&pending, SIGXFSZ) != 1) return;
    ::sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, SIGXFSZ);
    int number = 0;
    ::sigwait(&only, &number);
  }

  platform::sys::signal_bits before_ = 0;
  bool had_file_size_signal_ = false;
  bool file_too_large_ = false;
};

}  // namespace instance_guard::detail
