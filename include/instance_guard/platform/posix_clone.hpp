// layer 1: new processes with POSIX alone: fork(2), and nothing that shares memory.
//
// The names of linux_clone.hpp. The program's atfork handlers run, SIGCHLD is sent whatever exit
// signal is asked for, and a copy of a threaded program may hold locks of libc: it calls only
// async-signal-safe functions.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

inline constexpr bool children_may_share_memory = false;

struct clone_request {
  uint64_t flags = 0;
  int exit_signal = 0;
  int* tid = nullptr;
  void* stack = nullptr;
  size_t stack_size = 0;
};

INSTANCE_GUARD_NO_SANITIZE inline long clone_call(const clone_request&, void (*)(void*), void*) noexcept {
  return -ENOSYS;
}

INSTANCE_GUARD_NO_SANITIZE inline long fork_copy(int) noexcept {
  return sys::negated([] { return ::fork(); });
}

}  // namespace instance_guard::platform
