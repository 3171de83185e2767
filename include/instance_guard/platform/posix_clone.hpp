// layer 1: new processes with POSIX alone: fork(2), and nothing that shares memory.
//
// The names of linux_clone.hpp. SIGCHLD is sent whatever exit signal is asked for, and a copy of a
// threaded program may hold locks of libc: it calls only async-signal-safe functions.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

inline constexpr bool children_may_share_memory = false;

inline constexpr uint64_t sharing_flags = 0;
inline constexpr uint64_t brief_flags = 0;
inline constexpr uint64_t sibling_flags = 0;

struct clone_request {
  uint64_t flags = 0;
  int exit_signal = 0;
  int* tid = nullptr;
  void* stack = nullptr;
  size_t stack_size = 0;
  int control_group = -1;
};

INSTANCE_GUARD_NO_SANITIZE inline long clone_call(const clone_request&, void (*)(void*), void*) noexcept {
  return -ENOSYS;
}

INSTANCE_GUARD_NO_SANITIZE inline bool can_share_with_children() noexcept { return false; }

/// Without atfork handlers where the system has _Fork (POSIX.1-2024).
INSTANCE_GUARD_NO_SANITIZE inline long fork_copy(int) noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
  return sys::negated([] { return ::_Fork(); });
#else
  return sys::negated([] { return ::fork(); });
#endif
}

}  // namespace instance_guard::platform
