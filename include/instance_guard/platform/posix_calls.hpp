// layer 1: the system calls that run after fork or in a signal handler, by name (POSIX alone).
//
// The names and meanings of linux_calls.hpp over libc. Only functions that POSIX lists as
// async-signal-safe (signal-safety(7)), or that every system makes so (mmap, nanosleep, waitid,
// sendmsg). They do touch errno; it is put back. What POSIX does not have answers -ENOSYS, and
// callers do without.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/// For code that runs where a sanitizer's runtime must not be entered.
#if defined(__clang__)
#define INSTANCE_GUARD_NO_SANITIZE __attribute__((no_sanitize("address", "thread", "undefined")))
#else
#define INSTANCE_GUARD_NO_SANITIZE __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

namespace instance_guard::platform {

/// Calls go through libc, which writes errno.
inline constexpr bool calls_touch_no_memory = false;

namespace sys {

/// Bit n-1 is signal n.
using signal_bits = uint64_t;
inline constexpr signal_bits all_signals = ~signal_bits{0};
INSTANCE_GUARD_NO_SANITIZE constexpr signal_bits signal_bit(int number) noexcept {
  return signal_bits{1} << (number - 1);
}

/// The answer of libc as the kernel gives it: a value >= 0 or a negated errno.
template <class Call>
INSTANCE_GUARD_NO_SANITIZE inline auto negated(Call call) noexcept {
  const int saved = errno;
  auto result = call();
  if (result == -1) result = static_cast<decltype(result)>(-errno);
  errno = saved;
  return result;
}

INSTANCE_GUARD_NO_SANITIZE inline int open(const char* path, int flags, mode_t mode = 0) noexcept {
  return negated([&] { return ::open(path, flags, mode); });
}
INSTANCE_GUARD_NO_SANITIZE inline int openat(int directory, const char* path, int flags, mode_t mode = 0) noexcept {
  return negated([&] { return ::openat(directory, path, flags, mode); });
}
/// Never repeated: whether the descriptor is gone after EINTR is not said (close(2)).
INSTANCE_GUARD_NO_SANITIZE inline int close(int descriptor) noexcept {
  return negated([&] { return ::close(descriptor); });
}
INSTANCE_GUARD_NO_SANITIZE inline long read(int descriptor, void* data, size_t size) noexcept {
  return negated([&] { return ::read(descriptor, data, size); });
}
INSTANCE_GUARD_NO_SANITIZE inline long pread(int descriptor, void* data, size_t size, off_t offset) noexcept {
  return negated([&] { return ::pread(descriptor, data, size, offset); });
}
INSTANCE_GUARD_NO_SANITIZE inline long write(int descriptor, const void* data, size_t size) noexcept {
  return negated([&] { return ::write(descriptor, data, size); });
}
INSTANCE_GUARD_NO_SANITIZE inline long pwrite(int descriptor, const void* data, size_t size, off_t offset) noexcept {
  return negated([&] { return ::pwrite(descriptor, data, size, offset); });
}
INSTANCE_GUARD_NO_SANITIZE inline int ftruncate(int descriptor, off_t size) noexcept {
  return negated([&] { return ::ftruncate(descriptor, size); });
}
INSTANCE_GUARD_NO_SANITIZE inline int fstat(int descriptor, struct stat* out) noexcept {
  return negated([&] { return ::fstat(descriptor, out); });
}
INSTANCE_GUARD_NO_SANITIZE inline int fstatat(int directory, const char* path, struct stat* out, int flags) noexcept {
  return negated([&] { return ::fstatat(directory, path, out, flags); });
}
INSTANCE_GUARD_NO_SANITIZE inline int unlinkat(int directory, const char* path) noexcept {
  return negated([&] { return ::unlinkat(directory, path, 0); });
}
INSTANCE_GUARD_NO_SANITIZE inline int futimens(int descriptor, const timespec times[2]) noexcept {
  return negated([&] { return ::futimens(descriptor, times); });
}
INSTANCE_GUARD_NO_SANITIZE inline long readlinkat(int directory, const char* path, char* out, size_t size) noexcept {
  return negated([&] { return ::readlinkat(directory, path, out, size); });
}
INSTANCE_GUARD_NO_SANITIZE inline int fcntl(int descriptor, int command, long argument) noexcept {
  return negated([&] { return ::fcntl(descriptor, command, argument); });
}
INSTANCE_GUARD_NO_SANITIZE inline int close_on_exec(int descriptor) noexcept {
  return fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}
/// Not atomic: an exec by another thread in between may inherit the copy.
INSTANCE_GUARD_NO_SANITIZE inline int dup3(int from, int to, int flags) noexcept {
  const int result = negated([&] { return ::dup2(from, to); });
  if (result >= 0 && (flags & O_CLOEXEC) != 0) close_on_exec(to);
  return result;
}
INSTANCE_GUARD_NO_SANITIZE inline int close_range(unsigned, unsigned) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline long getdents(int, void*, size_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int chdir(const char* path) noexcept {
  return negated([&] { return ::chdir(path); });
}
INSTANCE_GUARD_NO_SANITIZE inline int fchdir(int descriptor) noexcept {
  return negated([&] { return ::fchdir(descriptor); });
}
INSTANCE_GUARD_NO_SANITIZE inline mode_t umask(mode_t mask) noexcept { return ::umask(mask); }
INSTANCE_GUARD_NO_SANITIZE inline void* mmap(size_t size, int protection, int flags, int descriptor,
                                             off_t offset) noexcept {
  const int saved = errno;
  void* result = ::mmap(nullptr, size, protection, flags, descriptor, offset);
  if (result == MAP_FAILED) result = reinterpret_cast<void*>(static_cast<intptr_t>(-errno));
  errno = saved;
  return result;
}
/// Whether mmap() above failed (its answer is then a small negated errno).
INSTANCE_GUARD_NO_SANITIZE inline bool is_error(const void* mapped) noexcept {
  return reinterpret_cast<uintptr_t>(mapped) > static_cast<uintptr_t>(-4096);
}
INSTANCE_GUARD_NO_SANITIZE inline int munmap(void* data, size_t size) noexcept {
  return negated([&] { return ::munmap(data, size); });
}
INSTANCE_GUARD_NO_SANITIZE inline int mprotect(void* data, size_t size, int protection) noexcept {
  return negated([&] { return ::mprotect(data, size, protection); });
}

/// Not atomic: an exec by another thread in between may inherit the ends.
INSTANCE_GUARD_NO_SANITIZE inline int socketpair_seqpacket(int out[2]) noexcept {
  const int result = negated([&] { return ::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, out); });
  for (int i = 0; result == 0 && i < 2; ++i) close_on_exec(out[i]);
  return result;
}
/// Not atomic either.
INSTANCE_GUARD_NO_SANITIZE inline int pipe2(int out[2], int flags) noexcept {
  const int result = negated([&] { return ::pipe(out); });
  for (int i = 0; result == 0 && i < 2; ++i) {
    if ((flags & O_CLOEXEC) != 0) close_on_exec(out[i]);
    if ((flags & O_NONBLOCK) != 0) fcntl(out[i], F_SETFL, fcntl(out[i], F_GETFL, 0) | O_NONBLOCK);
  }
  return result;
}
INSTANCE_GUARD_NO_SANITIZE inline long sendmsg(int descriptor, const msghdr* message, int flags) noexcept {
  return negated([&] { return ::sendmsg(descriptor, message, flags); });
}
INSTANCE_GUARD_NO_SANITIZE inline long recvmsg(int descriptor, msghdr* message, int flags) noexcept {
  return negated([&] { return ::recvmsg(descriptor, message, flags); });
}
INSTANCE_GUARD_NO_SANITIZE inline int setsockopt_int(int descriptor, int level, int option, int value) noexcept {
  return negated([&] { return ::setsockopt(descriptor, level, option, &value, sizeof value); });
}

INSTANCE_GUARD_NO_SANITIZE inline sigset_t to_set(signal_bits bits) noexcept {
  sigset_t set;
  sigemptyset(&set);
  for (int number = 1; number <= 64; ++number)
    if ((bits & signal_bit(number)) != 0) sigaddset(&set, number);  // numbers that are none: no harm
  return set;
}
INSTANCE_GUARD_NO_SANITIZE inline signal_bits to_bits(const sigset_t& set) noexcept {
  signal_bits bits = 0;
  for (int number = 1; number <= 64; ++number)
    if (sigismember(&set, number) == 1) bits |= signal_bit(number);
  return bits;
}
/// Sets the calling thread's mask; `old` may be null.
INSTANCE_GUARD_NO_SANITIZE inline int set_signal_mask(signal_bits mask, signal_bits* old = nullptr) noexcept {
  const int saved = errno;
  sigset_t before;
  const sigset_t after = to_set(mask);
  const int result = ::pthread_sigmask(SIG_SETMASK, &after, &before);
  if (result == 0 && old != nullptr) *old = to_bits(before);
  errno = saved;
  return -result;
}
/// poll with a timeout in nanoseconds (negative: none), rounded up to whole milliseconds.
/// `blocked` is the mask while waiting, null leaves it as it is; it is not set in one step with
/// the wait.
INSTANCE_GUARD_NO_SANITIZE inline int ppoll(pollfd* entries, unsigned count, int64_t nanoseconds,
                                            const signal_bits* blocked) noexcept {
  int64_t limit = nanoseconds < 0 ? -1 : (nanoseconds + 999'999) / 1'000'000;
  if (limit > INT32_MAX) limit = INT32_MAX;
  signal_bits before = 0;
  if (blocked != nullptr) set_signal_mask(*blocked, &before);
  const int result = negated([&] { return ::poll(entries, count, static_cast<int>(limit)); });
  if (blocked != nullptr) set_signal_mask(before);
  return result;
}

INSTANCE_GUARD_NO_SANITIZE inline pid_t getpid() noexcept { return ::getpid(); }
/// There is no number for a thread: all of them ask as the process.
INSTANCE_GUARD_NO_SANITIZE inline pid_t gettid() noexcept { return ::getpid(); }
INSTANCE_GUARD_NO_SANITIZE inline pid_t getppid() noexcept { return ::getppid(); }
INSTANCE_GUARD_NO_SANITIZE inline uid_t geteuid() noexcept { return ::geteuid(); }
INSTANCE_GUARD_NO_SANITIZE inline pid_t setsid() noexcept {
  return negated([] { return ::setsid(); });
}
INSTANCE_GUARD_NO_SANITIZE inline int setpgid(pid_t process, pid_t group) noexcept {
  return negated([&] { return ::setpgid(process, group); });
}
/// A negative process is a process group, as in kill(2). Callers must know that the number
/// can't have been reused: their own unreaped child, or its group.
INSTANCE_GUARD_NO_SANITIZE inline int kill(pid_t process, int signal) noexcept {
  return negated([&] { return ::kill(process, signal); });
}
/// POSIX does not tell what the child has used.
INSTANCE_GUARD_NO_SANITIZE inline int waitid(int type, pid_t id, siginfo_t* out, int options,
                                             rusage* = nullptr) noexcept {
  options &= WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT;
  return negated([&] { return ::waitid(static_cast<idtype_t>(type), static_cast<id_t>(id), out, options); });
}
/// Only the caller's own (0).
INSTANCE_GUARD_NO_SANITIZE inline int prlimit(pid_t process, int resource, const rlimit* set, rlimit* old) noexcept {
  if (process != 0 && process != ::getpid()) return -ENOSYS;
  int result = 0;
  // The type of the first argument differs between systems.
  const auto which = static_cast<decltype(RLIMIT_NOFILE)>(resource);
  if (old != nullptr) result = negated([&] { return ::getrlimit(which, old); });
  if (result == 0 && set != nullptr) result = negated([&] { return ::setrlimit(which, set); });
  return result;
}
INSTANCE_GUARD_NO_SANITIZE inline int execve(const char* path, char* const* arguments,
                                             char* const* environment) noexcept {
  return negated([&] { return ::execve(path, arguments, environment); });
}
[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void exit_group(int status) noexcept { ::_exit(status); }
INSTANCE_GUARD_NO_SANITIZE inline int pidfd_open(pid_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int pidfd_send_signal(int, int) noexcept { return -ENOSYS; }

/// Nanoseconds of CLOCK_MONOTONIC.
INSTANCE_GUARD_NO_SANITIZE inline int64_t monotonic_now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
INSTANCE_GUARD_NO_SANITIZE inline void sleep_for(int64_t nanoseconds) noexcept {
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(nanoseconds / 1'000'000'000);
  limit.tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  negated([&] { return ::nanosleep(&limit, nullptr); });
}
/// No event to wait for: looks again soon. Callers loop.
INSTANCE_GUARD_NO_SANITIZE inline void relax() noexcept {}
INSTANCE_GUARD_NO_SANITIZE inline void yield() noexcept { ::sched_yield(); }
INSTANCE_GUARD_NO_SANITIZE inline int current_processor() noexcept { return -1; }
INSTANCE_GUARD_NO_SANITIZE inline int futex_wait(const int*, int, int64_t nanoseconds) noexcept {
  sleep_for(nanoseconds < 200'000 ? nanoseconds : 200'000);
  return 0;
}
INSTANCE_GUARD_NO_SANITIZE inline int futex_wake(const int*) noexcept { return 0; }

}  // namespace sys
}  // namespace instance_guard::platform
