// layer 1: one process looked at closely (Linux): what it carries, and a signal to exactly it.
//
// Everything goes through one descriptor of /proc/<pid>. It belongs to that process for good:
// once the process has ended each read fails, also when its pid has been given to another. The
// descriptor is a pidfd as well (pidfd_send_signal(2)), so the process that was read and the one
// that is signalled can't be two.
//
// Async-signal-safe; no allocation; usable after any kind of fork. 0 or more, or a negated errno:
// -ENOENT or -ESRCH when the process has ended, -EACCES when it may not be read (another user's,
// or not dumpable). posix_inspect.hpp has the same names.
#pragma once

#include "linux_calls.hpp"
#include "linux_control_group.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

/// False where the processes of this host can't be looked into at all.
inline constexpr bool can_inspect_processes = true;

/// A process that is being looked at. A plain value: close_process() it.
struct process_view {
  pid_t pid = 0;
  int directory = -1;
  pid_t thread = 0;  ///< 0: read the leader's files; else this thread's, the leader has ended
};

namespace inspect {

/// "task/<tid>/<leaf>" or just the leaf; `out` is 32 bytes longer than the leaf.
INSTANCE_GUARD_NO_SANITIZE inline const char* leaf_path(const process_view& view, char* out,
                                                        const char* leaf) noexcept {
  if (view.thread == 0) return leaf;
  char path[64];
  proc_path(path, view.thread, leaf);
  char* at = out;
  for (const char* from = "task/"; *from != '\0';) *at++ = *from++;
  for (const char* from = path + sizeof "/proc/" - 1; *from != '\0';) *at++ = *from++;
  *at = '\0';
  return out;
}

/// The decimal number at `at`, which is moved behind it.
INSTANCE_GUARD_NO_SANITIZE inline uint64_t decimal(const char*& at, const char* end) noexcept {
  uint64_t value = 0;
  while (at < end && *at >= '0' && *at <= '9') value = value * 10U + static_cast<uint64_t>(*at++ - '0');
  return value;
}

INSTANCE_GUARD_NO_SANITIZE inline uint64_t hexadecimal(const char*& at, const char* end) noexcept {
  uint64_t value = 0;
  for (; at < end; ++at) {
    if (*at >= '0' && *at <= '9') value = value * 16U + static_cast<uint64_t>(*at - '0');
    else if (*at >= 'a' && *at <= 'f') value = value * 16U + static_cast<uint64_t>(*at - 'a') + 10U;
    else break;
  }
  return value;
}

/// Calls `visit` for each part of a file between two separators, until it returns false. Of a
/// long part only the first `keep` bytes are given. -EFBIG after `limit` bytes.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_part(const process_view& view, const char* leaf, char separator,
                                                    char* buffer, size_t size, uint64_t limit,
                                                    bool (*visit)(const char*, size_t, void*), void* context) noexcept {
  constexpr size_t keep = 320;  // a line of maps is 73 bytes and the path
  char path[64];
  const int file = sys::openat(view.directory, leaf_path(view, path, leaf), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  char part[keep];
  size_t used = 0;
  uint64_t total = 0;
  bool go_on = true;
  long got = 0;
  while (go_on) {
    got = sys::read(file, buffer, size);
    if (got == -EINTR) continue;
    if (got <= 0) break;
    total += static_cast<uint64_t>(got);
    for (long i = 0; go_on && i < got; ++i) {
      if (buffer[i] == separator) {
        go_on = visit(part, used, context);
        used = 0;
      } else if (used < keep) {
        part[used++] = buffer[i];
      }
    }
    if (total >= limit) got = -EFBIG;
    if (got < 0) break;
  }
  sys::close(file);
  if (got < 0) return static_cast<int>(got);
  if (go_on && used > 0) visit(part, used, context);
  return 0;
}

}  // namespace inspect

/// Opens /proc/<pid>. -ENOENT: no such process.
INSTANCE_GUARD_NO_SANITIZE inline int open_process(pid_t pid, process_view& out) noexcept {
  char path[64];
  if (pid <= 0) return -ESRCH;
  const int directory = sys::open(proc_path(path, pid, ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  out = {pid, directory, 0};
  return 0;
}

INSTANCE_GUARD_NO_SANITIZE inline void close_process(process_view& view) noexcept {
  if (view.directory >= 0) sys::close(view.directory);
  view.directory = -1;
}

/// Its effective user. The directory shows it also for a process that is not dumpable.
INSTANCE_GUARD_NO_SANITIZE inline int user_of_process(pid_t pid, uid_t& out) noexcept {
  char path[64];
  struct stat facts;
  const int result = sys::fstatat(AT_FDCWD, proc_path(path, pid, ""), &facts, 0);
  if (result == 0) out = facts.st_uid;
  return result;
}

INSTANCE_GUARD_NO_SANITIZE inline int view_user(const process_view& view, uid_t& out) noexcept {
  struct stat facts;
  const int result = sys::fstat(view.directory, &facts);
  if (result == 0) out = facts.st_uid;
  return result;
}

namespace inspect {

/// The text of /proc/<pid>/stat, parsed into `out`: its length, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline long read_stat(const process_view& view, char* text, size_t size, process_stat& out,
                                                 size_t* behind = nullptr) noexcept {
  char path[64];
  const int file = sys::openat(view.directory, leaf_path(view, path, "stat"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  long got = 0;
  do {
    got = sys::read(file, text, size);
  } while (got == -EINTR);
  sys::close(file);
  if (got <= 0) return got < 0 ? got : -ESRCH;
  return parse_process_stat(text, static_cast<size_t>(got), out, behind) ? got : -ESRCH;
}

}  // namespace inspect

/// /proc/<pid>/stat. `in_transition`, if given, is set while it executes a new program and does
/// not have its memory yet: what it carries can't be seen at that moment.
INSTANCE_GUARD_NO_SANITIZE inline int view_stat(const process_view& view, process_stat& out,
                                                bool* in_transition = nullptr) noexcept {
  char text[1024];
  const long size = inspect::read_stat(view, text, sizeof text, out);
  if (size < 0) return static_cast<int>(size);
  if (in_transition == nullptr) return 0;
  // Fields 9 (flags) and 51 (env_end), counted from the last ')': see proc_pid_stat(5).
  const char* end = text + size;
  const char* at = end;
  while (at > text && at[-1] != ')') --at;
  uint64_t flags = 0;
  uint64_t environment_end = 0;
  for (int field = 3; at < end; ++field) {
    while (at < end && *at == ' ') ++at;
    if (field == 9) flags = inspect::decimal(at, end);
    if (field == 51) environment_end = inspect::decimal(at, end);
    while (at < end && *at != ' ') ++at;
  }
  constexpr uint64_t kernel_thread = 0x00200000;
  *in_transition = (flags & kernel_thread) == 0 && environment_end == 0 && out.state != 'Z' && out.state != 'X';
  return 0;
}

/// The same, and where its program, stack, arguments and environment are in its memory, as one
/// number: of each execve(2) another one, while a copy by fork has its parent's. 0: it has none,
/// does not show it to the caller, or it tells nothing.
INSTANCE_GUARD_NO_SANITIZE inline int view_stat_and_image(const process_view& view, process_stat& out,
                                                          uint64_t& image) noexcept {
  char text[1024];
  size_t behind = 0;
  const long size = inspect::read_stat(view, text, sizeof text, out, &behind);
  if (size < 0) return static_cast<int>(size);
  const char* const end = text + size;
  const char* at = text + behind;
  uint64_t last = 0;
  image = 0xcbf29ce484222325U;  // FNV-1a, a number at a time
  // Fields 26 to 28, and 45 to 51: see proc_pid_stat(5).
  for (int field = 25; at < end && field <= 51; ++field) {
    while (at < end && *at == ' ') ++at;
    if ((field >= 26 && field <= 28) || field >= 45) {
      last = inspect::decimal(at, end);
      image = (image ^ last) * 0x100000001b3U;
    }
    while (at < end && *at != ' ') ++at;
  }
  // It ends at the very top of what a program can have, on each machine: nothing of it is at random
  // places (setarch -R, randomize_va_space), and another image may be in the same ones.
  constexpr uint64_t at_the_top = 0x7ffe0000U;
  if (last == 0 || (last & at_the_top) == at_the_top) image = 0;
  return 0;
}

/// A leader that has ended shows nothing, while its other threads live: reads one of those from
/// now on. `buffer` holds directory entries meanwhile. -ESRCH: each that was met had ended; `met` is
/// a sum of them all then. Two such answers with the same sum: none is left. (One that lived when the
/// second look began was in the first, or would be new in the second, or has left one that is.)
INSTANCE_GUARD_NO_SANITIZE inline int view_living_thread(process_view& view, char* buffer, size_t size,
                                                         uint64_t& met) noexcept {
  view.thread = 0;
  met = 0;
  const int directory = sys::openat(view.directory, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  long got = 0;
  while (view.thread == 0 && (got = sys::getdents(directory, buffer, size)) > 0) {
    for (long at = 0; view.thread == 0 && at < got;) {
      const unsigned length = static_cast<unsigned char>(buffer[at + 16]) |
                              static_cast<unsigned>(static_cast<unsigned char>(buffer[at + 17])) << 8;
      const char* name = buffer + at + 19;
      const uint64_t thread = inspect::decimal(name, buffer + at + length);
      if (thread > 1 && thread <= INT32_MAX && static_cast<pid_t>(thread) != view.pid) {
        view.thread = static_cast<pid_t>(thread);
        met = (met ^ thread) * 0x100000001b3;
        process_stat facts;
        if (view_stat(view, facts) != 0 || facts.state == 'Z' || facts.state == 'X') view.thread = 0;
      }
      at += length;
    }
  }
  sys::close(directory);
  return view.thread != 0 ? 0 : -ESRCH;
}

/// Inode of its pid namespace.
INSTANCE_GUARD_NO_SANITIZE inline int view_pid_namespace(const process_view& view, uint64_t& out) noexcept {
  char path[64];
  const char* const leaf = inspect::leaf_path(view, path, "ns/pid");
  // The link says it, "pid:[4026531836]", at half of what following it costs.
  char text[64];
  const long size = sys::readlinkat(view.directory, leaf, text, sizeof text);
  const char* at = text + sizeof "pid:[" - 1;
  if (size > at - text && at[-1] == '[') {
    const uint64_t inode = inspect::decimal(at, text + size);
    if (inode != 0 && at == text + size - 1 && *at == ']') {
      out = inode;
      return 0;
    }
  }
  struct stat facts;
  const int result = sys::fstatat(view.directory, leaf, &facts, 0);
  if (result == 0) out = facts.st_ino;
  return result;
}

/// The file it executes, also when that has been deleted since. Copies by fork have the same.
INSTANCE_GUARD_NO_SANITIZE inline int view_program(const process_view& view, uint64_t& device,
                                                   uint64_t& inode) noexcept {
  char path[64];
  struct stat facts;
  const int result = sys::fstatat(view.directory, inspect::leaf_path(view, path, "exe"), &facts, 0);
  if (result != 0) return result;
  device = facts.st_dev;
  inode = facts.st_ino;
  return 0;
}

/// A number for the text of /proc/<pid>/cgroup: the same service, container, session or scope has
/// the same (cgroups(7)). A group that a warden has made below it counts as the one above. 0 where the
/// kernel has no cgroups.
INSTANCE_GUARD_NO_SANITIZE inline int view_control_group(const process_view& view, char* buffer, size_t size,
                                                         uint64_t& out) noexcept {
  char path[64];
  out = 0;
  const int file =
      sys::openat(view.directory, inspect::leaf_path(view, path, "cgroup"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file == -ENOENT) {
    process_stat facts;  // no such file, or no such process any more
    return view_stat(view, facts);
  }
  if (file < 0) return file;
  uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a, 64 bits
  uint64_t above = 0;                   // up to the last slash, with it where it is the root
  size_t matched = 0;                   // bytes of the prefix that the part behind it has agreed with
  int dashes = 0;
  bool agrees = false;
  char before = 0;
  const auto is_digit = [](char c) noexcept { return c >= '0' && c <= '9'; };
  const auto add = [](uint64_t sum, char c) noexcept { return (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3U; };
  long got = 0;
  while ((got = sys::read(file, buffer, size)) > 0 || got == -EINTR)
    for (long i = 0; i < got; ++i) {
      const char c = buffer[i];
      if (c == '/') {
        above = before == ':' ? add(hash, c) : hash;
        matched = 0;
        dashes = 0;
        agrees = true;
      } else if (c == '\n') {
        if (agrees && dashes == 1 && is_digit(before)) hash = above;  // "instance-guard.PID-START"
        agrees = false;
      } else if (matched < sizeof control_group_prefix - 1) {
        agrees = agrees && c == control_group_prefix[matched];
        ++matched;
      } else if (c == '-') {
        agrees = agrees && is_digit(before) && ++dashes == 1;
      } else {
        agrees = agrees && is_digit(c);
      }
      hash = add(hash, c);
      before = c;
    }
  sys::close(file);
  if (got < 0) return static_cast<int>(got);
  out = hash != 0 ? hash : 1;
  return 0;
}

/// Calls `visit` for each "NAME=value" that the program was started with, as the process keeps it
/// now (it may overwrite that memory). setenv(3) later on does not show. Of a long one only the
/// beginning is given. -EFBIG: more than 16 MiB, execve(2) allows 6.
INSTANCE_GUARD_NO_SANITIZE inline int view_environment(const process_view& view, char* buffer, size_t size,
                                                       bool (*visit)(const char*, size_t, void*),
                                                       void* context) noexcept {
  return inspect::for_each_part(view, "environ", '\0', buffer, size, uint64_t{16} << 20, visit, context);
}

/// One mapped file of a process.
struct mapped_file {
  uint64_t device = 0;
  uint64_t inode = 0;
  const char* path = nullptr;  ///< not ended by NUL
  size_t path_size = 0;
};

/// Calls `visit` for each mapping of a file, until it returns false. A file that was never on
/// disk (memfd_create(2)) has the path "/memfd:NAME (deleted)". -EFBIG: more than 64 MiB of text.
INSTANCE_GUARD_NO_SANITIZE inline int view_mapped_files(const process_view& view, char* buffer, size_t size,
                                                        bool (*visit)(const mapped_file&, void*),
                                                        void* context) noexcept {
  struct state {
    bool (*visit)(const mapped_file&, void*);
    void* context;
  } forward{visit, context};
  struct line {
    // "from-to rwxp offset major:minor inode    path"
    INSTANCE_GUARD_NO_SANITIZE static bool parse(const char* at, size_t size, void* target) noexcept {
      const char* end = at + size;
      for (int blanks = 0; blanks < 3 && at < end; ++at)
        if (*at == ' ') ++blanks;
      mapped_file file;
      const uint64_t major = inspect::hexadecimal(at, end);
      if (at < end && *at == ':') ++at;
      const uint64_t minor = inspect::hexadecimal(at, end);
      // As makedev(3) puts them together, so that it compares with st_dev.
      file.device =
          (minor & 0xffU) | (major & 0xfffU) << 8 | (minor & ~uint64_t{0xff}) << 12 | (major & ~uint64_t{0xfff}) << 32;
      while (at < end && *at == ' ') ++at;
      file.inode = inspect::decimal(at, end);
      while (at < end && *at == ' ') ++at;
      if (at >= end || *at != '/') return true;
      file.path = at;
      file.path_size = static_cast<size_t>(end - at);
      const auto* to = static_cast<state*>(target);
      return to->visit(file, to->context);
    }
  };
  return inspect::for_each_part(view, "maps", '\n', buffer, size, uint64_t{64} << 20, line::parse, &forward);
}

/// Sends a signal to exactly this process; 0 only asks. Where the kernel can't do it through a
/// descriptor (before 5.1, under valgrind, a seccomp filter), by its pid: then a process that
/// ends, and whose pid is reused, within the microseconds since the last read is mistaken.
INSTANCE_GUARD_NO_SANITIZE inline int view_signal(const process_view& view, int signal) noexcept {
  const int result = sys::pidfd_send_signal(view.directory, signal);
  if (result == 0 || result == -ESRCH || result == -EINVAL) return result;
  if (result == -EPERM && sys::kill(view.pid, 0) == -EPERM) return result;
  process_stat facts;
  const int there = view_stat(view, facts);
  return there != 0 ? -ESRCH : sys::kill(view.pid, signal);
}

/// Now, in the unit of process_stat::start_time.
INSTANCE_GUARD_NO_SANITIZE inline uint64_t process_clock_now() noexcept {
  timespec now{};
  system_call(SYS_clock_gettime, CLOCK_BOOTTIME, word(&now));
  constexpr uint64_t ticks = 100;  // what the kernel shows to programs, on every architecture in use
  return static_cast<uint64_t>(now.tv_sec) * ticks + static_cast<uint64_t>(now.tv_nsec) / (1'000'000'000 / ticks);
}

/// True if it is a process, not one thread of one: /proc/<tid> can be opened too.
INSTANCE_GUARD_NO_SANITIZE inline bool view_is_process(const process_view& view) noexcept {
  const int file = sys::openat(view.directory, "status", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  char text[512];  // Tgid is the fourth line
  long size = 0;
  do {
    size = sys::read(file, text, sizeof text);
  } while (size == -EINTR);
  sys::close(file);
  for (long i = 0; i + 6 < size; ++i)
    if (text[i] == '\n' && text[i + 1] == 'T' && text[i + 2] == 'g' && text[i + 3] == 'i' && text[i + 4] == 'd' &&
        text[i + 5] == ':') {
      const char* at = text + i + 6;
      while (at < text + size && (*at == '\t' || *at == ' ')) ++at;
      return inspect::decimal(at, text + size) == static_cast<uint64_t>(view.pid);
    }
  return false;
}

/// The last process or thread id given out in this pid namespace; 0: not known. Whoever looks at
/// all processes, and then at those with the numbers given out since, has seen all of them.
INSTANCE_GUARD_NO_SANITIZE inline pid_t last_process_id() noexcept {
  char text[128];
  long size = read_small_file("/proc/sys/kernel/ns_last_pid", text, sizeof text);
  if (size <= 0) {
    // The last number in there is the same, unless another file is mounted over it (a container's
    // view of the load, which knows nothing of processes).
    const int file = sys::open("/proc/loadavg", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return 0;
    struct stat here, there;
    const bool real = sys::fstat(file, &here) == 0 &&
                      sys::fstatat(AT_FDCWD, "/proc/self", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                      here.st_dev == there.st_dev;
    size = real ? sys::read(file, text, sizeof text) : 0;
    sys::close(file);
  }
  long end = size;
  while (end > 0 && (text[end - 1] < '0' || text[end - 1] > '9')) --end;
  long begin = end;
  while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9') --begin;
  if (begin >= end) return 0;
  const char* at = text + begin;
  return static_cast<pid_t>(inspect::decimal(at, text + end));
}

/// Whether /proc counts processes as the caller does: it may have been mounted for another pid
/// namespace, and then each number in it means somebody else. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int process_list_is_ours() noexcept {
  char text[32];
  const long size = sys::readlinkat(AT_FDCWD, "/proc/self", text, sizeof text);
  if (size < 0) return static_cast<int>(size);
  const char* at = text;
  return inspect::decimal(at, text + size) == static_cast<uint64_t>(sys::getpid()) ? 0 : -ENOENT;
}

}  // namespace instance_guard::platform
