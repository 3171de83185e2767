// layer 1: marking a process and its copies, and who adopts its orphans (Linux).
//
// Async-signal-safe; no allocation; usable after any kind of fork. 0 or more, or a negated errno.
// posix_mark.hpp has the same names.
#pragma once

#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "linux_calls.hpp"
#include "linux_inspect.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

/// Fills `out` from the kernel's random number generator; never waits for it (-EAGAIN in the
/// first seconds of a boot).
INSTANCE_GUARD_NO_SANITIZE inline int random_bytes(void* out, size_t size) noexcept {
  constexpr long nonblocking = 1;  // GRND_NONBLOCK
  const long got = system_call(SYS_getrandom, word(out), static_cast<long>(size), nonblocking);
  if (got == static_cast<long>(size)) return 0;
  if (got != -ENOSYS && got != -EPERM) return got < 0 ? static_cast<int>(got) : -EIO;
  const int file = sys::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  if (file < 0) return file;
  const long read = sys::read(file, out, size);
  sys::close(file);
  return read == static_cast<long>(size) ? 0 : -EIO;
}

/// A page of shared memory that can't be read, written or resized by anybody: each copy of this
/// process by fork keeps it, no other program has it, and it shows in /proc/<pid>/maps as
/// "/memfd:<name>". It ends with the last of them, or by execve. See memfd_create(2).
struct mark_page {
  void* address = nullptr;
  uint64_t device = 0;
  uint64_t inode = 0;
};

inline constexpr size_t mark_page_size = 4096;  // a mapping is rounded up to a whole page

INSTANCE_GUARD_NO_SANITIZE inline int make_mark_page(const char* name, mark_page& out) noexcept {
  constexpr long noexec_seal = 8;  // MFD_NOEXEC_SEAL: some hosts refuse a memfd without it
  long file = system_call(SYS_memfd_create, word(name), MFD_CLOEXEC | MFD_ALLOW_SEALING | noexec_seal);
  if (file == -EINVAL) file = system_call(SYS_memfd_create, word(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return static_cast<int>(file);
  const int descriptor = static_cast<int>(file);
  struct stat facts;
  int result = sys::ftruncate(descriptor, mark_page_size);
  if (result == 0) result = sys::fstat(descriptor, &facts);
  if (result == 0)
    result = sys::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  if (result == 0) {
    void* page = sys::mmap(mark_page_size, PROT_NONE, MAP_SHARED, descriptor, 0);
    if (sys::is_error(page)) result = static_cast<int>(reinterpret_cast<intptr_t>(page));
    else out = {page, facts.st_dev, facts.st_ino};
  }
  sys::close(descriptor);
  return result;
}

INSTANCE_GUARD_NO_SANITIZE inline void drop_mark_page(mark_page& page) noexcept {
  if (page.address != nullptr) sys::munmap(page.address, mark_page_size);
  page = {};
}

/// True only if the calling thread is the only one of its process: then nobody can call getenv(3)
/// while it changes the environment.
///
/// Asks for the number of links of /proc/self/task: two, and one for each thread. That is a fifth of
/// what reading a number from a file there costs.
INSTANCE_GUARD_NO_SANITIZE inline bool has_one_thread() noexcept {
  struct stat facts;
  return sys::fstatat(AT_FDCWD, "/proc/self/task", &facts, 0) == 0 && facts.st_nlink == 3;
}

/// Who becomes the parent of the caller's grandchildren when their parent ends: the nearest
/// ancestor that has declared itself a subreaper, or process 1 of the namespace. Nothing in /proc
/// tells which one, so it is tried: a child starts a grandchild and ends, the grandchild looks
/// at its parent. Takes some 300 µs; `limit` nanoseconds at most.
///
/// The grandchild ends at once and is reaped by its new parent. One that never reaps (a container
/// without an init) keeps it as a zombie: call this only where the answer decides something.
///
/// A caller that is a subreaper itself stops being one for that moment. With children that is
/// -EBUSY, unless it says with `may_lose` that an orphan of theirs may go past it. Other errors:
/// of clone(2) and pipe(2); -ETIMEDOUT. SIGCHLD is not sent.
INSTANCE_GUARD_NO_SANITIZE inline pid_t find_adopter(int64_t limit, bool may_lose) noexcept {
  int subreaper = 0;
  sys::prctl(PR_GET_CHILD_SUBREAPER, word(&subreaper));
  if (subreaper != 0 && !may_lose) {
    siginfo_t any{};
    if (sys::waitid(P_ALL, 0, &any, WEXITED | WNOHANG | WNOWAIT | __WALL) != -ECHILD) return -EBUSY;
  }
  int ends[2] = {-1, -1};
  if (const int result = sys::pipe2(ends, O_CLOEXEC | O_NONBLOCK); result < 0) return result;
  sys::signal_bits mask = 0;
  sys::set_signal_mask(sys::all_signals, &mask);  // no handler of the program runs in a child
  if (subreaper != 0) sys::prctl(PR_SET_CHILD_SUBREAPER, 0);
  const int64_t until = sys::monotonic_now() + limit;
  const long middle = system_call(SYS_clone, 0, 0, 0, 0, 0);  // as fork(2), without a SIGCHLD
  if (middle == 0) {
    const pid_t parent = sys::getpid();
    if (system_call(SYS_clone, 0, 0, 0, 0, 0) != 0) sys::exit_group(0);
    // The grandchild. It holds copies of the caller's descriptors: let go of them.
    sys::dup3(ends[1], 0, 0);
    sys::close_range(1, ~0U);
    pid_t now = parent;
    while ((now = sys::getppid()) == parent && sys::monotonic_now() < until) sys::sleep_for(50'000);
    sys::write(0, &now, sizeof now);
    sys::exit_group(0);
  }
  int result = static_cast<int>(middle);
  sys::close(ends[1]);
  if (middle > 0) {
    siginfo_t ended{};
    while (sys::waitid(P_PID, static_cast<pid_t>(middle), &ended, WEXITED | __WALL) == -EINTR) {
    }
    pid_t answer = 0;
    result = -ETIMEDOUT;
    for (int64_t left = 0; (left = until - sys::monotonic_now()) > 0;) {
      pollfd entry{ends[0], POLLIN, 0};
      sys::ppoll(&entry, 1, left, nullptr);
      const long got = sys::read(ends[0], &answer, sizeof answer);
      if (got == -EAGAIN || got == -EINTR) continue;
      if (got == static_cast<long>(sizeof answer) && answer != static_cast<pid_t>(middle)) result = answer;
      else result = -EAGAIN;
      break;
    }
  }
  if (subreaper != 0) sys::prctl(PR_SET_CHILD_SUBREAPER, 1);
  sys::set_signal_mask(mask);
  sys::close(ends[0]);
  return result;
}

}  // namespace instance_guard::platform
