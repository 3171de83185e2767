// layer 1: what a process may ask the kernel about itself and its parent (Linux).
//
// Async-signal-safe; for the warden and for a child before its exec. Each function returns 0 or
// a value, or a negated errno.
#pragma once

#include <errno.h>
#include <linux/prctl.h>

#include "linux_calls.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

/// True where adopt_orphans() works, as far as the system goes.
inline constexpr bool can_adopt_orphans = true;

/// Whether orphans of the caller's descendants become its children: then "no child is left"
/// means "no descendant is left". See PR_SET_CHILD_SUBREAPER, prctl(2).
INSTANCE_GUARD_NO_SANITIZE inline int adopt_orphans() noexcept { return sys::prctl(PR_SET_CHILD_SUBREAPER, 1); }

/// Takes that back.
INSTANCE_GUARD_NO_SANITIZE inline void keep_no_orphans() noexcept { sys::prctl(PR_SET_CHILD_SUBREAPER, 0); }

/// The caller gets SIGKILL when its parent ends. -ESRCH: `parent` has ended already.
/// It is the parent's *thread* that counts (prctl(2)): a parent with one thread only.
INSTANCE_GUARD_NO_SANITIZE inline int die_with_parent(pid_t parent) noexcept {
  const int result = sys::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (result < 0) return result;
  // Whoever adopts an orphan was there before, so it can't have the dead parent's number.
  return sys::getppid() == parent ? 0 : -ESRCH;
}

/// No exec of the caller, or of what it starts, gives it more rights: setuid is ignored.
INSTANCE_GUARD_NO_SANITIZE inline int forbid_new_privileges() noexcept { return sys::prctl(PR_SET_NO_NEW_PRIVS, 1); }

/// Marks every descriptor of the caller from `first` on as closed by an exec. 0, or a negated errno:
/// -ENOSYS before Linux 5.9, -EINVAL before 5.11.
INSTANCE_GUARD_NO_SANITIZE inline int close_all_on_exec(unsigned first) noexcept {
  return static_cast<int>(system_call(SYS_close_range, first, ~0U, 4));  // CLOSE_RANGE_CLOEXEC
}

/// Sets one signal to its default, or to ignored.
INSTANCE_GUARD_NO_SANITIZE inline int set_disposition(int number, bool ignored) noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
  struct {  // the kernel's own struct sigaction
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    sys::signal_bits mask;
  } action = {};
  action.handler = reinterpret_cast<uintptr_t>(ignored ? SIG_IGN : SIG_DFL);
  return static_cast<int>(system_call(SYS_rt_sigaction, number, word(&action), 0, sizeof action.mask));
#else
  struct sigaction action = {};
  action.sa_handler = ignored ? SIG_IGN : SIG_DFL;
  return ::sigaction(number, &action, nullptr) == 0 ? 0 : -errno;
#endif
}

/// The signals that the calling thread blocks.
INSTANCE_GUARD_NO_SANITIZE inline sys::signal_bits signal_mask_now() noexcept {
  sys::signal_bits mask = 0;
  system_call(SYS_rt_sigprocmask, SIG_BLOCK, 0, word(&mask), sizeof mask);
  return mask;
}

/// True if a blocked signal is waiting for the calling thread.
INSTANCE_GUARD_NO_SANITIZE inline bool is_signal_pending(int number) noexcept {
  sys::signal_bits pending = 0;
  system_call(SYS_rt_sigpending, word(&pending), sizeof pending);
  return (pending & sys::signal_bit(number)) != 0;
}

/// Takes a blocked signal that is waiting, if there is one.
INSTANCE_GUARD_NO_SANITIZE inline void take_pending_signal(int number) noexcept {
  const sys::signal_bits only = sys::signal_bit(number);
  const timespec at_once = {};
  system_call(SYS_rt_sigtimedwait, word(&only), 0, word(&at_once), sizeof only);
}

/// A descriptor that is readable while one of the blocked `signals` is pending: signalfd(2).
INSTANCE_GUARD_NO_SANITIZE inline int signal_descriptor(sys::signal_bits signals) noexcept {
  return static_cast<int>(system_call(SYS_signalfd4, -1, word(&signals), sizeof signals, O_CLOEXEC | O_NONBLOCK));
}

/// A signal as it arrived.
struct taken_signal {
  int number = 0;
  bool from_kernel = false;  ///< by the terminal, a limit, a fault: not by a process
  pid_t sender = 0;          ///< 0: the kernel, or a process of another pid namespace
};

/// Takes one signal of a signal_descriptor; false: there is none.
INSTANCE_GUARD_NO_SANITIZE inline bool take_signal_from(int descriptor, taken_signal& out) noexcept {
  int taken[32] = {};  // struct signalfd_siginfo: number, errno, code, pid, ..., 128 bytes
  if (sys::read(descriptor, taken, sizeof taken) != static_cast<long>(sizeof taken)) return false;
  out.number = taken[0];
  out.from_kernel = taken[2] == SI_KERNEL;
  out.sender = taken[2] <= 0 ? taken[3] : 0;
  return true;
}

/// Whether a child has stopped since this was asked last. The signal, 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int has_stopped(pid_t child) noexcept {
  siginfo_t info = {};
  const int result = sys::waitid(P_PID, child, &info, WSTOPPED | WNOHANG | __WALL);
  return result < 0 ? result : info.si_pid != 0 ? info.si_status : 0;
}

/// Takes what a signal_descriptor has.
INSTANCE_GUARD_NO_SANITIZE inline void drain_signals(int descriptor) noexcept {
  char taken[512];  // more than one of each ordinary signal is never pending
  sys::read(descriptor, taken, sizeof taken);
}

namespace linux_detail {

/// Overwrites [from, to) of the caller's memory, which the kernel shows to others as text.
INSTANCE_GUARD_NO_SANITIZE inline void overwrite(uint64_t from, uint64_t to, const char* text) noexcept {
  for (volatile char* at = reinterpret_cast<volatile char*>(static_cast<uintptr_t>(from)); at != nullptr && from < to;
       ++from, ++at) {
    *at = *text;
    if (*text != '\0') ++text;
  }
}

}  // namespace linux_detail

/// Another name and command line for the caller, and an empty environment, as other processes
/// see them: `pgrep -f bot` must not count a copy of the bot that only watches over it.
/// At most 15 bytes of the name are shown, and no more of the line than there was before.
INSTANCE_GUARD_NO_SANITIZE inline void rename_self(const char* name) noexcept {
  sys::prctl(PR_SET_NAME, word(name));
  char text[1024];
  const long size = read_small_file("/proc/self/stat", text, sizeof text);
  if (size <= 0) return;
  long at = size;
  while (at > 0 && text[at - 1] != ')') --at;
  uint64_t value[53] = {};
  for (int field = 3; field < 53 && at < size; ++field) {
    while (at < size && text[at] == ' ') ++at;
    while (at < size && text[at] != ' ' && text[at] != '\n') {
      if (text[at] >= '0' && text[at] <= '9') value[field] = value[field] * 10U + static_cast<uint64_t>(text[at] - '0');
      ++at;
    }
  }
  // arg_start, arg_end, env_start, env_end: proc_pid_stat(5)
  linux_detail::overwrite(value[48], value[49], name);
  linux_detail::overwrite(value[50], value[51], "");
}

/// Closes every descriptor from `first` on but those in `kept` (ascending, none below `first`).
INSTANCE_GUARD_NO_SANITIZE inline void close_all_but(unsigned first, const int* kept, unsigned count) noexcept {
  unsigned from = first;
  int result = 0;
  for (unsigned i = 0; i <= count && result >= 0; ++i) {
    const unsigned to = i < count ? static_cast<unsigned>(kept[i]) : ~0U;
    if (to > from) result = sys::close_range(from, i < count ? to - 1 : to);
    from = to + 1;
  }
  if (result >= 0) return;
  // Before Linux 5.9: ask which there are; each pass may miss some while it closes others.
  char buffer[1024];
  for (int pass = 0; pass < 1024; ++pass) {
    const int directory = sys::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rlimit limit = {};
    sys::prlimit(0, RLIMIT_NOFILE, nullptr, &limit);
    unsigned closed = 0;
    const auto close_unless_kept = [&](unsigned number) noexcept {
      if (number < first || static_cast<int>(number) == directory) return;
      for (unsigned i = 0; i < count; ++i)
        if (static_cast<unsigned>(kept[i]) == number) return;
      if (sys::close(static_cast<int>(number)) == 0) ++closed;
    };
    if (directory < 0) {  // no /proc either
      for (unsigned number = first; number < limit.rlim_max && number < (1U << 20); ++number) close_unless_kept(number);
      return;
    }
    long got = 0;
    while ((got = sys::getdents(directory, buffer, sizeof buffer)) > 0) {
      for (long at = 0; at < got;) {
        const unsigned length = static_cast<unsigned char>(buffer[at + 16]) |
                                static_cast<unsigned>(static_cast<unsigned char>(buffer[at + 17])) << 8;
        const char* name = buffer + at + 19;
        unsigned number = 0;
        const bool digits = *name >= '0' && *name <= '9';
        while (*name >= '0' && *name <= '9') number = number * 10U + static_cast<unsigned>(*name++ - '0');
        if (digits) close_unless_kept(number);
        at += length;
      }
    }
    sys::close(directory);
    if (closed == 0) return;
  }
}

/// Looks whether a child has ended or is stopped, and leaves that to be seen again. 0: `info` has
/// si_pid 0 if neither; -ECHILD: not a child of the caller.
INSTANCE_GUARD_NO_SANITIZE inline int wait_for_child_change(pid_t pid, siginfo_t& info) noexcept {
  // A quiet child (no exit signal) is found with __WALL only.
  return sys::waitid(P_PID, pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL);
}

/// Reaps a child: 1 if it had ended, 0 if it has not, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int reap_child(pid_t pid) noexcept {
  siginfo_t info = {};
  const int result = sys::waitid(P_PID, pid, &info, WEXITED | WNOHANG | __WALL);
  return result < 0 ? result : info.si_pid == 0 ? 0 : 1;
}

/// open(2) flags for a directory that is only passed on or changed to: no right to read it needed.
inline constexpr int directory_only_flags = O_PATH | O_DIRECTORY;

/// A file in memory alone, closed on exec; `name` is for those who look. Negated errno on failure.
INSTANCE_GUARD_NO_SANITIZE inline int memory_file(const char* name) noexcept {
  return static_cast<int>(system_call(SYS_memfd_create, word(name), 1));  // MFD_CLOEXEC
}

/// A file of this size in memory alone, closed on exec, for forbid_writers. Negated errno on failure.
INSTANCE_GUARD_NO_SANITIZE inline int page_file(const char* name, size_t size) noexcept {
  const long file = system_call(SYS_memfd_create, word(name), 3);  // MFD_CLOEXEC | MFD_ALLOW_SEALING
  if (file < 0) return static_cast<int>(file);
  const long result = system_call(SYS_ftruncate, file, static_cast<long>(size));
  if (result == 0) return static_cast<int>(file);
  sys::close(static_cast<int>(file));
  return static_cast<int>(result);
}

/// From now on nobody can write to the file or change its size, but through mappings that are there
/// already: F_ADD_SEALS in fcntl(2). 0, or a negated errno: -EINVAL before Linux 5.1.
INSTANCE_GUARD_NO_SANITIZE inline int forbid_writers(int file) noexcept {
  constexpr int seals = 0x1 | 0x2 | 0x4 | 0x10;  // F_SEAL_SEAL, _SHRINK, _GROW, _FUTURE_WRITE
  return sys::fcntl(file, 1033, seals);          // F_ADD_SEALS
}

/// Calls `visit` for each child of one thread, zombies included, ascending or not, until it returns
/// false. 0, or a negated errno: -ENOENT also on kernels without this file.
/// Some may be missed while others end: proc_tid_children(5).
INSTANCE_GUARD_NO_SANITIZE inline int for_each_child_of_thread(pid_t pid, pid_t thread, bool (*visit)(pid_t, void*),
                                                               void* context) noexcept {
  char path[64];
  char leaf[48] = "task/";
  char* at = leaf + 5;
  proc_path(path, thread, "children");
  for (const char* from = path + 6; *from != '\0';) *at++ = *from++;  // what follows "/proc/"
  *at = '\0';
  const int file = sys::open(proc_path(path, pid, leaf), O_RDONLY | O_CLOEXEC);
  if (file < 0) return file;
  pid_t number = 0;
  char text[1024];
  long got = 0;
  bool go_on = true;
  while (go_on && ((got = sys::read(file, text, sizeof text)) > 0 || got == -EINTR)) {
    for (long i = 0; go_on && i < got; ++i) {
      if (text[i] >= '0' && text[i] <= '9') {
        number = number * 10 + (text[i] - '0');
      } else {
        if (number > 0) go_on = visit(number, context);
        number = 0;
      }
    }
  }
  sys::close(file);
  return got < 0 ? static_cast<int>(got) : 0;
}

/// The same for all threads of a process that has as many.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_child(pid_t pid, int threads, bool (*visit)(pid_t, void*),
                                                     void* context) noexcept {
  if (threads == 1) return for_each_child_of_thread(pid, pid, visit, context);
  char path[64];
  const int directory = sys::open(proc_path(path, pid, "task"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  struct each_thread {
    pid_t pid;
    bool (*visit)(pid_t, void*);
    void* context;
    INSTANCE_GUARD_NO_SANITIZE static bool list(pid_t thread, void* self) noexcept {
      const each_thread& of = *static_cast<each_thread*>(self);
      for_each_child_of_thread(of.pid, thread, of.visit, of.context);  // it may have ended
      return true;
    }
  } of = {pid, visit, context};
  char entries[1024];
  const int result = for_each_process_in(directory, entries, sizeof entries, each_thread::list, &of);
  sys::close(directory);
  return result;
}

/// The children of the caller, which has one thread: how many are in `out`, at most `size`, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int own_children(pid_t* out, int size) noexcept {
  struct list {
    pid_t* out;
    int size;
    int count;
    INSTANCE_GUARD_NO_SANITIZE static bool add(pid_t child, void* self) noexcept {
      list& into = *static_cast<list*>(self);
      into.out[into.count++] = child;
      return into.count < into.size;
    }
  } into = {out, size, 0};
  const int result = for_each_child(sys::getpid(), 1, list::add, &into);
  return result < 0 ? result : into.count;
}

/// The state file of a process, to be read again and again; a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int open_process_stat(pid_t pid) noexcept {
  char path[64];
  return sys::open(proc_path(path, pid, "stat"), O_RDONLY | O_CLOEXEC);
}

/// What it says now, in one system call. 0, or a negated errno: -ESRCH once the process has been
/// reaped, also when its pid belongs to another by now.
INSTANCE_GUARD_NO_SANITIZE inline int read_open_stat(int file, process_stat& out) noexcept {
  char text[1024];
  const long size = sys::pread(file, text, sizeof text, 0);
  if (size < 0) return static_cast<int>(size);
  return parse_process_stat(text, static_cast<size_t>(size), out) ? 0 : -ESRCH;
}

}  // namespace instance_guard::platform
