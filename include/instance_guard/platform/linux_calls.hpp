// layer 1: the system calls that run after fork or in a signal handler, by name (Linux).
//
// Every function: async-signal-safe, allocates nothing, leaves errno alone (where
// calls_touch_no_memory), returns a value >= 0 or a negated errno. platform/posix.hpp has the
// same functions over libc. EINTR is returned to the caller unless said otherwise.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
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

#include "linux_syscall.hpp"

namespace instance_guard::platform::sys {

/// The kernel's signal set: bit n-1 is signal n. (sigset_t of libc is 128 bytes, this is 8.)
using signal_bits = uint64_t;
inline constexpr signal_bits all_signals = ~signal_bits{0};
INSTANCE_GUARD_NO_SANITIZE constexpr signal_bits signal_bit(int number) noexcept {
  return signal_bits{1} << (number - 1);
}

INSTANCE_GUARD_NO_SANITIZE inline int open(const char* path, int flags, mode_t mode = 0) noexcept {
  return static_cast<int>(system_call(SYS_openat, AT_FDCWD, word(path), flags, mode));
}
INSTANCE_GUARD_NO_SANITIZE inline int openat(int directory, const char* path, int flags, mode_t mode = 0) noexcept {
  return static_cast<int>(system_call(SYS_openat, directory, word(path), flags, mode));
}
/// Never repeated: on Linux the descriptor is gone even after EINTR (close(2)).
INSTANCE_GUARD_NO_SANITIZE inline int close(int descriptor) noexcept {
  return static_cast<int>(system_call(SYS_close, descriptor));
}
INSTANCE_GUARD_NO_SANITIZE inline long read(int descriptor, void* data, size_t size) noexcept {
  return system_call(SYS_read, descriptor, word(data), static_cast<long>(size));
}
INSTANCE_GUARD_NO_SANITIZE inline long pread(int descriptor, void* data, size_t size, off_t offset) noexcept {
  return system_call(SYS_pread64, descriptor, word(data), static_cast<long>(size), offset);
}
INSTANCE_GUARD_NO_SANITIZE inline long write(int descriptor, const void* data, size_t size) noexcept {
  return system_call(SYS_write, descriptor, word(data), static_cast<long>(size));
}
INSTANCE_GUARD_NO_SANITIZE inline long pwrite(int descriptor, const void* data, size_t size, off_t offset) noexcept {
  return system_call(SYS_pwrite64, descriptor, word(data), static_cast<long>(size), offset);
}
INSTANCE_GUARD_NO_SANITIZE inline int ftruncate(int descriptor, off_t size) noexcept {
  return static_cast<int>(system_call(SYS_ftruncate, descriptor, size));
}
INSTANCE_GUARD_NO_SANITIZE inline int fstat(int descriptor, struct stat* out) noexcept {
  return static_cast<int>(system_call(SYS_fstat, descriptor, word(out)));
}
INSTANCE_GUARD_NO_SANITIZE inline int fstatat(int directory, const char* path, struct stat* out, int flags) noexcept {
  return static_cast<int>(system_call(SYS_newfstatat, directory, word(path), word(out), flags));
}
INSTANCE_GUARD_NO_SANITIZE inline int unlinkat(int directory, const char* path) noexcept {
  return static_cast<int>(system_call(SYS_unlinkat, directory, word(path), 0));
}
INSTANCE_GUARD_NO_SANITIZE inline int futimens(int descriptor, const timespec times[2]) noexcept {
  return static_cast<int>(system_call(SYS_utimensat, descriptor, 0, word(times), 0));
}
INSTANCE_GUARD_NO_SANITIZE inline long readlinkat(int directory, const char* path, char* out, size_t size) noexcept {
  return system_call(SYS_readlinkat, directory, word(path), word(out), static_cast<long>(size));
}
INSTANCE_GUARD_NO_SANITIZE inline int fcntl(int descriptor, int command, long argument) noexcept {
  return static_cast<int>(system_call(SYS_fcntl, descriptor, command, argument));
}
INSTANCE_GUARD_NO_SANITIZE inline int dup3(int from, int to, int flags) noexcept {
  return static_cast<int>(system_call(SYS_dup3, from, to, flags));
}
/// Closes first..last; -ENOSYS before Linux 5.9 and under valgrind 3.19.
INSTANCE_GUARD_NO_SANITIZE inline int close_range(unsigned first, unsigned last) noexcept {
  return static_cast<int>(system_call(SYS_close_range, first, last, 0));
}
/// Raw directory entries (struct linux_dirent64) into a caller's buffer: see getdents64(2).
INSTANCE_GUARD_NO_SANITIZE inline long getdents(int directory, void* data, size_t size) noexcept {
  return system_call(SYS_getdents64, directory, word(data), static_cast<long>(size));
}
INSTANCE_GUARD_NO_SANITIZE inline int chdir(const char* path) noexcept {
  return static_cast<int>(system_call(SYS_chdir, word(path)));
}
INSTANCE_GUARD_NO_SANITIZE inline int fchdir(int descriptor) noexcept {
  return static_cast<int>(system_call(SYS_fchdir, descriptor));
}
INSTANCE_GUARD_NO_SANITIZE inline mode_t umask(mode_t mask) noexcept {
  return static_cast<mode_t>(system_call(SYS_umask, mask));
}
INSTANCE_GUARD_NO_SANITIZE inline void* mmap(size_t size, int protection, int flags, int descriptor,
                                             off_t offset) noexcept {
  return reinterpret_cast<void*>(
      system_call(SYS_mmap, 0, static_cast<long>(size), protection, flags, descriptor, offset));
}
/// Whether mmap() above failed (its answer is then a small negated errno).
INSTANCE_GUARD_NO_SANITIZE inline bool is_error(const void* mapped) noexcept {
  return reinterpret_cast<uintptr_t>(mapped) > static_cast<uintptr_t>(-4096);
}
INSTANCE_GUARD_NO_SANITIZE inline int munmap(void* data, size_t size) noexcept {
  return static_cast<int>(system_call(SYS_munmap, word(data), static_cast<long>(size)));
}
INSTANCE_GUARD_NO_SANITIZE inline int mprotect(void* data, size_t size, int protection) noexcept {
  return static_cast<int>(system_call(SYS_mprotect, word(data), static_cast<long>(size), protection));
}

INSTANCE_GUARD_NO_SANITIZE inline int socketpair_seqpacket(int out[2]) noexcept {
  return static_cast<int>(system_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, word(out)));
}
INSTANCE_GUARD_NO_SANITIZE inline int pipe2(int out[2], int flags) noexcept {
  return static_cast<int>(system_call(SYS_pipe2, word(out), flags));
}
INSTANCE_GUARD_NO_SANITIZE inline long sendmsg(int descriptor, const msghdr* message, int flags) noexcept {
  return system_call(SYS_sendmsg, descriptor, word(message), flags);
}
INSTANCE_GUARD_NO_SANITIZE inline long recvmsg(int descriptor, msghdr* message, int flags) noexcept {
  return system_call(SYS_recvmsg, descriptor, word(message), flags);
}
INSTANCE_GUARD_NO_SANITIZE inline int setsockopt_int(int descriptor, int level, int option, int value) noexcept {
  return static_cast<int>(system_call(SYS_setsockopt, descriptor, level, option, word(&value), sizeof value));
}
/// Waits until the one entry can be read, as ppoll below; for select(2) RLIMIT_NOFILE does not count. -EINVAL: its
/// number is too high.
INSTANCE_GUARD_NO_SANITIZE inline int select_readable(pollfd& entry, timespec* limit,
                                                      const signal_bits* blocked) noexcept {
  constexpr int bits = 64;
  uint64_t set[4096 / bits] = {};
  if (entry.fd < 0 || entry.fd >= 4096) return -EINVAL;
  set[entry.fd / bits] = uint64_t{1} << (entry.fd % bits);
  const long mask[2] = {word(blocked), sizeof(signal_bits)};
  const long result = system_call(SYS_pselect6, entry.fd + 1, word(set), 0, 0, word(limit), word(mask));
  if (result != 1 && result != -EBADF) return static_cast<int>(result);
  entry.revents = result == 1 ? POLLIN : POLLNVAL;
  return 1;
}

/// poll with an absolute-free timeout in nanoseconds (negative: none) and the signals that may
/// interrupt it: `blocked` is the mask while waiting, null leaves it as it is. One entry that is to be read is waited
/// for also where poll(2) refuses it: with a limit of no descriptors at all.
INSTANCE_GUARD_NO_SANITIZE inline int ppoll(pollfd* entries, unsigned count, int64_t nanoseconds,
                                            const signal_bits* blocked) noexcept {
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(nanoseconds / 1'000'000'000);
  limit.tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  timespec* const most = nanoseconds < 0 ? nullptr : &limit;
  const long result = system_call(SYS_ppoll, word(entries), count, word(most), word(blocked), sizeof(signal_bits));
  if (result == -EINVAL && count == 1 && entries[0].events == POLLIN) return select_readable(entries[0], most, blocked);
  return static_cast<int>(result);
}

INSTANCE_GUARD_NO_SANITIZE inline pid_t getpid() noexcept { return static_cast<pid_t>(system_call(SYS_getpid)); }
INSTANCE_GUARD_NO_SANITIZE inline pid_t gettid() noexcept { return static_cast<pid_t>(system_call(SYS_gettid)); }
INSTANCE_GUARD_NO_SANITIZE inline pid_t getppid() noexcept { return static_cast<pid_t>(system_call(SYS_getppid)); }
INSTANCE_GUARD_NO_SANITIZE inline uid_t geteuid() noexcept { return static_cast<uid_t>(system_call(SYS_geteuid)); }
INSTANCE_GUARD_NO_SANITIZE inline pid_t setsid() noexcept { return static_cast<pid_t>(system_call(SYS_setsid)); }
INSTANCE_GUARD_NO_SANITIZE inline int setpgid(pid_t process, pid_t group) noexcept {
  return static_cast<int>(system_call(SYS_setpgid, process, group));
}
/// A negative process is a process group, as in kill(2). Callers must know that the number
/// can't have been reused: their own unreaped child, or its group.
INSTANCE_GUARD_NO_SANITIZE inline int kill(pid_t process, int signal) noexcept {
  return static_cast<int>(system_call(SYS_kill, process, signal));
}
INSTANCE_GUARD_NO_SANITIZE inline int waitid(int type, pid_t id, siginfo_t* out, int options,
                                             rusage* usage = nullptr) noexcept {
  return static_cast<int>(system_call(SYS_waitid, type, id, word(out), options, word(usage)));
}
/// prctl is variadic and the kernel reads five arguments: always pass all (tini#67).
INSTANCE_GUARD_NO_SANITIZE inline int prctl(int option, long a, long b = 0, long c = 0, long d = 0) noexcept {
  return static_cast<int>(system_call(SYS_prctl, option, a, b, c, d));
}
INSTANCE_GUARD_NO_SANITIZE inline int prlimit(pid_t process, int resource, const rlimit* set, rlimit* old) noexcept {
  return static_cast<int>(system_call(SYS_prlimit64, process, resource, word(set), word(old)));
}
/// Sets the calling thread's mask; `old` may be null.
INSTANCE_GUARD_NO_SANITIZE inline int set_signal_mask(signal_bits mask, signal_bits* old = nullptr) noexcept {
  return static_cast<int>(system_call(SYS_rt_sigprocmask, SIG_SETMASK, word(&mask), word(old), sizeof mask));
}
INSTANCE_GUARD_NO_SANITIZE inline int execve(const char* path, char* const* arguments,
                                             char* const* environment) noexcept {
  return static_cast<int>(system_call(SYS_execve, word(path), word(arguments), word(environment)));
}
[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void exit_group(int status) noexcept {
  for (;;) system_call(SYS_exit_group, status);
}
/// -ENOSYS before Linux 5.3, -EPERM under some seccomp filters.
INSTANCE_GUARD_NO_SANITIZE inline int pidfd_open(pid_t process) noexcept {
  return static_cast<int>(system_call(SYS_pidfd_open, process, 0));
}
INSTANCE_GUARD_NO_SANITIZE inline int pidfd_send_signal(int descriptor, int signal) noexcept {
  return static_cast<int>(system_call(SYS_pidfd_send_signal, descriptor, signal, 0, 0));
}
INSTANCE_GUARD_NO_SANITIZE inline int futex_wait(const int* where, int expected, int64_t nanoseconds) noexcept {
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(nanoseconds / 1'000'000'000);
  limit.tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  return static_cast<int>(system_call(SYS_futex, word(where), FUTEX_WAIT, expected, word(&limit), 0, 0));
}
/// Wakes whoever waits there, at most one.
INSTANCE_GUARD_NO_SANITIZE inline int futex_wake(const int* where) noexcept {
  return static_cast<int>(system_call(SYS_futex, word(where), FUTEX_WAKE, 1, 0, 0, 0));
}
/// Between two looks at a word in memory: leaves the processor's core to its other thread.
INSTANCE_GUARD_NO_SANITIZE inline void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}
/// Lets others on this processor run first.
INSTANCE_GUARD_NO_SANITIZE inline void yield() noexcept { system_call(SYS_sched_yield); }
/// The processor that the caller runs on just now; a guess in the next moment.
INSTANCE_GUARD_NO_SANITIZE inline int current_processor() noexcept {
  unsigned processor = 0;
  const long result = system_call(SYS_getcpu, word(&processor), 0, 0);
  return result < 0 ? -1 : static_cast<int>(processor);
}
/// Nanoseconds of CLOCK_MONOTONIC.
INSTANCE_GUARD_NO_SANITIZE inline int64_t monotonic_now() noexcept {
  timespec now{};
  system_call(SYS_clock_gettime, CLOCK_MONOTONIC, word(&now));
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
INSTANCE_GUARD_NO_SANITIZE inline void sleep_for(int64_t nanoseconds) noexcept {
  ppoll(nullptr, 0, nanoseconds, nullptr);
}

}  // namespace instance_guard::platform::sys
