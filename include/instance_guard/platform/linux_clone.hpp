// layer 1: new processes without libc: a copy of the caller, or a child in the caller's memory (Linux).
//
// fork(3) runs the program's atfork handlers, takes malloc's locks and sends SIGCHLD; none of
// that may happen when a threaded program starts its warden. Async-signal-safe.
#pragma once

#include <errno.h>
#include <linux/sched.h>

#include "linux_calls.hpp"

namespace instance_guard::platform {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool threads_are_checked = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool threads_are_checked = true;
#else
inline constexpr bool threads_are_checked = false;
#endif
#else
inline constexpr bool threads_are_checked = false;
#endif

/// True where a child may run in its parent's memory while the parent goes on: it makes system
/// calls only, and those touch nothing that the two would share (errno).
inline constexpr bool children_may_share_memory = calls_touch_no_memory && !threads_are_checked;

/// What clone3(2) is asked for.
struct clone_request {
  uint64_t flags = 0;      ///< CLONE_VM, CLONE_CHILD_SETTID, ...; see sibling_flags
  int exit_signal = 0;     ///< 0: the parent is not told, and waits with __WALL
  int* tid = nullptr;      ///< for CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID
  void* stack = nullptr;   ///< lowest byte of the child's stack
  size_t stack_size = 0;   ///< a multiple of 16
  int control_group = -1;  ///< directory of the group that the child is born in; -1: the caller's
};

/// For a child in the caller's memory; the word at `tid` is 0 once it has left that.
inline constexpr uint64_t sharing_flags = CLONE_VM | CLONE_CHILD_CLEARTID;

/// For a child in the caller's memory that the caller waits for.
inline constexpr uint64_t brief_flags = CLONE_VM | CLONE_VFORK;

/// For a child in the caller's memory whose parent is the caller's own, and that has none of its signal
/// handlers: clone3(2). The calling thread sleeps until the child's exec. -EINVAL before Linux 5.5.
inline constexpr uint64_t sibling_flags =
    CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_CHILD_CLEARTID | 0x100000000;  // CLONE_CLEAR_SIGHAND

/// Starts a child that runs `entry(argument)` on its own stack; `entry` must not return.
/// The child's pid, or a negated errno; -ENOSYS before Linux 5.3, under valgrind, and under
/// older container filters.
INSTANCE_GUARD_NO_SANITIZE inline long clone_call(const clone_request& request, void (*entry)(void*),
                                                  void* argument) noexcept {
#if (defined(__x86_64__) || defined(__aarch64__)) && defined(SYS_clone3)
  clone_args what = {};
  what.flags = request.flags;
  what.exit_signal = static_cast<uint64_t>(request.exit_signal);
  what.child_tid = reinterpret_cast<uintptr_t>(request.tid);
  what.stack = reinterpret_cast<uintptr_t>(request.stack);
  what.stack_size = request.stack_size;
  if (request.control_group >= 0) {
#ifdef CLONE_INTO_CGROUP
    what.flags |= CLONE_INTO_CGROUP;
    what.cgroup = static_cast<uint64_t>(request.control_group);
#else
    return -ENOSYS;
#endif
  }
#if defined(__x86_64__)
  long result;
  // The child starts with all registers of its parent but rax and rsp: it must not touch the
  // parent's frame, so it calls from here.
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "movq %[argument], %%rdi\n\t"
      "movq %[entry], %%rax\n\t"
      "xorl %%ebp, %%ebp\n\t"  // last: it may have held one of the two
      "callq *%%rax\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone3), "D"(&what), "S"(sizeof what), [entry] "r"(entry), [argument] "r"(argument)
      : "rcx", "r11", "memory");
  return result;
#else
  register long x8 asm("x8") = SYS_clone3;
  register long x0 asm("x0") = word(&what);
  register long x1 asm("x1") = sizeof what;
  asm volatile(
      "svc 0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x0, %[argument]\n\t"
      "mov x9, %[entry]\n\t"
      "mov x29, 0\n\t"  // last: it may have held one of the two
      "blr x9\n\t"
      "brk 1\n"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1), [entry] "r"(entry), [argument] "r"(argument)
      : "x30", "memory");
  return x0;
#endif
#else
  (void)request, (void)entry, (void)argument;
  return -ENOSYS;
#endif
}

/// Whether clone_call works here with a child in the caller's memory: it may be filtered.
INSTANCE_GUARD_NO_SANITIZE inline bool can_share_with_children() noexcept {
#if (defined(__x86_64__) || defined(__aarch64__)) && defined(SYS_clone3)
  return children_may_share_memory && system_call(SYS_clone3, 0, 0) == -EINVAL;  // of a size that is none
#else
  return false;
#endif
}

/// As fork(2), but without libc, and with an exit signal of the caller's choice (0: none).
INSTANCE_GUARD_NO_SANITIZE inline long fork_copy(int exit_signal) noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
  return system_call(SYS_clone, exit_signal);
#else
  (void)exit_signal;
  return ::fork();  // elsewhere clone's arguments come in other orders
#endif
}

}  // namespace instance_guard::platform
