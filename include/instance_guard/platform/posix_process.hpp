// layer 1: what a process may ask about itself and its children with POSIX alone.
//
// The names of linux_process.hpp. Async-signal-safe; 0 or a value, or a negated errno.
#pragma once

#include "posix_calls.hpp"
#include "posix_proc.hpp"

namespace instance_guard::platform {

inline constexpr bool can_adopt_orphans = false;

/// Orphans go to process 1: what leaves its process group and loses its parent is out of sight.
INSTANCE_GUARD_NO_SANITIZE inline int adopt_orphans() noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline void keep_no_orphans() noexcept {}

/// There is no signal on a parent's death; only whether it has ended already can be told.
INSTANCE_GUARD_NO_SANITIZE inline int die_with_parent(pid_t parent) noexcept {
  return sys::getppid() == parent ? 0 : -ESRCH;
}

INSTANCE_GUARD_NO_SANITIZE inline int forbid_new_privileges() noexcept { return -ENOSYS; }

/// Sets one signal to its default, or to ignored.
INSTANCE_GUARD_NO_SANITIZE inline int set_disposition(int number, bool ignored) noexcept {
  struct sigaction action = {};
  action.sa_handler = ignored ? SIG_IGN : SIG_DFL;
  return sys::negated([&] { return ::sigaction(number, &action, nullptr); });
}

INSTANCE_GUARD_NO_SANITIZE inline sys::signal_bits signal_mask_now() noexcept {
  sigset_t mask;
  sigemptyset(&mask);
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  return sys::to_bits(mask);
}

/// True if a blocked signal is waiting for the calling thread.
INSTANCE_GUARD_NO_SANITIZE inline bool is_signal_pending(int number) noexcept {
  sigset_t pending;
  sigemptyset(&pending);
  return ::sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
}

/// Takes a blocked signal that is waiting, if there is one.
INSTANCE_GUARD_NO_SANITIZE inline void take_pending_signal(int number) noexcept {
  const sigset_t only = sys::to_set(sys::signal_bit(number));
  int taken = 0;
  if (is_signal_pending(number)) ::sigwait(&only, &taken);
}

/// A signal as it arrived.
struct taken_signal {
  int number = 0;
  bool from_kernel = false;  ///< by the terminal, a limit, a fault: not by a process
  pid_t sender = 0;          ///< not known
};

namespace posix_detail {

/// Where signal_descriptor's handler writes. One for each process.
inline int signal_pipe = -1;

INSTANCE_GUARD_NO_SANITIZE inline void note_signal(int number, siginfo_t* info, void*) noexcept {
  // si_code is positive if the system sent it: sigaction(2).
  const unsigned char note[2] = {static_cast<unsigned char>(number),
                                 static_cast<unsigned char>(info != nullptr && info->si_code > 0)};
  sys::write(signal_pipe, note, sizeof note);  // a full pipe says enough
}

}  // namespace posix_detail

/// A descriptor that is readable after one of `signals` has arrived: a pipe that their handler
/// writes to. They are caught and unblocked from now on; at most one such descriptor a process.
INSTANCE_GUARD_NO_SANITIZE inline int signal_descriptor(sys::signal_bits signals) noexcept {
  int ends[2] = {-1, -1};
  const int result = sys::pipe2(ends, O_CLOEXEC | O_NONBLOCK);
  if (result < 0) return result;
  posix_detail::signal_pipe = ends[1];
  struct sigaction action = {};
  action.sa_sigaction = posix_detail::note_signal;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  sigfillset(&action.sa_mask);
  for (int number = 1; number <= 64; ++number)
    if ((signals & sys::signal_bit(number)) != 0) sys::negated([&] { return ::sigaction(number, &action, nullptr); });
  const sigset_t set = sys::to_set(signals);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return ends[0];
}

/// Takes one signal of a signal_descriptor; false: there is none.
INSTANCE_GUARD_NO_SANITIZE inline bool take_signal_from(int descriptor, taken_signal& out) noexcept {
  unsigned char note[2] = {};
  if (sys::read(descriptor, note, sizeof note) != static_cast<long>(sizeof note)) return false;
  out = {note[0], note[1] != 0, 0};
  return true;
}

/// Takes what a signal_descriptor has.
INSTANCE_GUARD_NO_SANITIZE inline void drain_signals(int descriptor) noexcept {
  char taken[512];
  while (sys::read(descriptor, taken, sizeof taken) == static_cast<long>(sizeof taken)) {
  }
}

/// Whether a child has stopped since this was asked last. The signal, 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int has_stopped(pid_t child) noexcept {
  siginfo_t info = {};
  const int result = sys::waitid(P_PID, child, &info, WSTOPPED | WNOHANG);
  return result < 0 ? result : info.si_pid != 0 ? info.si_status : 0;
}

/// There is no file that tells of a process.
INSTANCE_GUARD_NO_SANITIZE inline int open_process_stat(pid_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int read_open_stat(int, process_stat&) noexcept { return -ENOSYS; }

/// POSIX has no way to do it.
INSTANCE_GUARD_NO_SANITIZE inline void rename_self(const char*) noexcept {}

/// Closes every descriptor from `first` on but those in `kept` (ascending), as far as the limit
/// on descriptors tells which there may be, and 65,536 at most.
INSTANCE_GUARD_NO_SANITIZE inline void close_all_but(unsigned first, const int* kept, unsigned count) noexcept {
  rlimit limit = {};
  sys::prlimit(0, RLIMIT_NOFILE, nullptr, &limit);
  for (unsigned number = first; number < limit.rlim_max && number < 65'536U; ++number) {
    bool keep = false;
    for (unsigned i = 0; i < count; ++i) keep = keep || static_cast<unsigned>(kept[i]) == number;
    if (!keep) sys::close(static_cast<int>(number));
  }
}

INSTANCE_GUARD_NO_SANITIZE inline int wait_for_child_change(pid_t pid, siginfo_t& info) noexcept {
  return sys::waitid(P_PID, pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT);
}

INSTANCE_GUARD_NO_SANITIZE inline int reap_child(pid_t pid) noexcept {
  siginfo_t info = {};
  const int result = sys::waitid(P_PID, pid, &info, WEXITED | WNOHANG);
  return result < 0 ? result : info.si_pid == 0 ? 0 : 1;
}

/// POSIX has no list of children.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_child(pid_t, int, bool (*)(pid_t, void*), void*) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int own_children(pid_t*, int) noexcept { return -ENOSYS; }

/// A directory has to be readable to be opened.
inline constexpr int directory_only_flags = O_RDONLY | O_DIRECTORY;

INSTANCE_GUARD_NO_SANITIZE inline int close_all_on_exec(unsigned) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int page_file(const char*, size_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int forbid_writers(int) noexcept { return -ENOSYS; }

/// A file without a name, closed on exec: made in /tmp and unlinked at once.
INSTANCE_GUARD_NO_SANITIZE inline int memory_file(const char*) noexcept {
  for (int tries = 0; tries < 100; ++tries) {
    char path[] = "/tmp/instance_guard.0000000000000000";
    uint64_t number =
        static_cast<uint64_t>(sys::monotonic_now()) * 0x9e3779b97f4a7c15U + static_cast<uint64_t>(sys::getpid());
    for (size_t i = sizeof path - 2; path[i] != '.'; --i, number >>= 4) path[i] = "0123456789abcdef"[number & 0xfU];
    const int file = sys::open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file == -EEXIST) continue;
    if (file >= 0) sys::unlinkat(AT_FDCWD, path);
    return file;
  }
  return -EEXIST;
}

}  // namespace instance_guard::platform
