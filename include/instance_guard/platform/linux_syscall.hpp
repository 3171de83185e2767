// layer 1: system calls of Linux that touch neither errno nor any other memory of the program.
//
// The warden and the children it is about to start share memory with each other or are copies
// of a threaded program: there, libc's wrappers (errno, cancellation, sanitizer interceptors)
// are not safe. Every function here is async-signal-safe and may be called after any kind of
// fork, also in a child that shares its parent's memory. Each returns the kernel's answer:
// a value >= 0, or a negated errno.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <errno.h>
#endif

/// For code that runs where a sanitizer's runtime must not be entered.
#if defined(__clang__)
#define INSTANCE_GUARD_NO_SANITIZE __attribute__((no_sanitize("address", "thread", "undefined")))
#else
#define INSTANCE_GUARD_NO_SANITIZE __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

namespace instance_guard::platform {

#if defined(__x86_64__)
/// False where a system call can only be made through libc, which writes errno.
inline constexpr bool calls_touch_no_memory = true;

INSTANCE_GUARD_NO_SANITIZE inline long system_call(long number, long a = 0, long b = 0, long c = 0, long d = 0,
                                                   long e = 0, long f = 0) noexcept {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
inline constexpr bool calls_touch_no_memory = true;

INSTANCE_GUARD_NO_SANITIZE inline long system_call(long number, long a = 0, long b = 0, long c = 0, long d = 0,
                                                   long e = 0, long f = 0) noexcept {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#else
inline constexpr bool calls_touch_no_memory = false;

inline long system_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) noexcept {
  const long result = ::syscall(number, a, b, c, d, e, f);
  return result == -1 ? -static_cast<long>(errno) : result;
}
#endif

/// A pointer as an argument of system_call.
INSTANCE_GUARD_NO_SANITIZE inline long word(const volatile void* pointer) noexcept {
  return reinterpret_cast<long>(pointer);
}

}  // namespace instance_guard::platform
