// layer 1: all processes of this host, one after the other (Linux).
//
// Everything is read through a descriptor of the /proc that is asked for, so that a test can show
// another one. What is in there may be anything: no read waits for a writer, none is unbounded.
// No allocation. 0 or more, or a negated errno. posix_table.hpp has the same names.
#pragma once

#include "linux_calls.hpp"
#include "linux_inspect.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

/// Opens a mounted /proc.
INSTANCE_GUARD_NO_SANITIZE inline int open_process_list(const char* path) noexcept {
  return sys::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/// "<pid>/<leaf>" of an open /proc, or "<pid>" if the leaf is empty.
INSTANCE_GUARD_NO_SANITIZE inline const char* path_in_list(char* out, pid_t pid, const char* leaf) noexcept {
  proc_path(out, pid, leaf);
  constexpr size_t before = sizeof "/proc/" - 1;
  char* end = out + before;
  while (*end != '\0') ++end;
  if (end[-1] == '/') end[-1] = '\0';
  return out + before;
}

/// One row: its stat file and its effective user. -ENOENT or -ESRCH: it has ended; -EPERM or
/// -EACCES: it is hidden from the caller.
INSTANCE_GUARD_NO_SANITIZE inline int read_listed_process(int list, pid_t pid, process_stat& out,
                                                          uid_t& user) noexcept {
  char path[64];
  char text[1024];
  const int file = sys::openat(list, path_in_list(path, pid, "stat"), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  // The owner of the directory is right also for a process that is not dumpable. It is asked
  // before the read: if that one still succeeds, nobody else can have had the number.
  struct stat facts;
  long result = sys::fstatat(list, path_in_list(path, pid, ""), &facts, AT_SYMLINK_NOFOLLOW);
  if (result == 0) {
    do {
      result = sys::read(file, text, sizeof text);
    } while (result == -EINTR);
  }
  sys::close(file);
  if (result < 0) return static_cast<int>(result);
  if (!parse_process_stat(text, static_cast<size_t>(result), out) || out.pid != pid) return -ESRCH;
  user = facts.st_uid;
  return 0;
}

/// open_process() in an open /proc; to read from, not to signal: that takes more than O_PATH.
INSTANCE_GUARD_NO_SANITIZE inline int open_listed_process(int list, pid_t pid, process_view& out) noexcept {
  char path[64];
  if (pid <= 0) return -ESRCH;
  const int directory = sys::openat(list, path_in_list(path, pid, ""), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  out = {pid, directory, 0};
  return 0;
}

/// One of its files, to be read and closed.
INSTANCE_GUARD_NO_SANITIZE inline int open_view_file(const process_view& view, const char* leaf) noexcept {
  char path[64];
  return sys::openat(view.directory, inspect::leaf_path(view, path, leaf), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/// What a link of it ("exe", "cwd", "root") says, not ended by NUL; its length.
INSTANCE_GUARD_NO_SANITIZE inline long read_view_link(const process_view& view, const char* leaf, char* out,
                                                      size_t size) noexcept {
  char path[64];
  return sys::readlinkat(view.directory, inspect::leaf_path(view, path, leaf), out, size);
}

/// What such a link leads to, wherever that is by now.
INSTANCE_GUARD_NO_SANITIZE inline int stat_view_link(const process_view& view, const char* leaf,
                                                     struct stat& out) noexcept {
  char path[64];
  return sys::fstatat(view.directory, inspect::leaf_path(view, path, leaf), &out, 0);
}

/// Nanoseconds since 1970 at the time 0 of process_stat::start_time, by the clocks as they are
/// now. (The boot time that /proc/stat has is whole seconds, and of another moment.)
INSTANCE_GUARD_NO_SANITIZE inline int64_t process_clock_zero() noexcept {
  timespec wall{};
  timespec since_boot{};
  system_call(SYS_clock_gettime, CLOCK_REALTIME, word(&wall));
  system_call(SYS_clock_gettime, CLOCK_BOOTTIME, word(&since_boot));
  return (static_cast<int64_t>(wall.tv_sec) - static_cast<int64_t>(since_boot.tv_sec)) * 1'000'000'000 +
         (wall.tv_nsec - since_boot.tv_nsec);
}

/// Nanoseconds of one unit of process_stat::start_time and cpu_time: what the kernel shows to
/// programs, on every architecture in use.
inline constexpr int64_t process_clock_tick = 10'000'000;

/// Bytes of one of process_stat::resident_pages.
inline uint64_t page_bytes() noexcept {
  const long size = ::sysconf(_SC_PAGESIZE);
  return size > 0 ? static_cast<uint64_t>(size) : 4096;
}

/// True if processes of others are not even listed in /proc (hidepid=, see proc(5)): process 1 is
/// always there.
INSTANCE_GUARD_NO_SANITIZE inline bool list_hides_processes(int list) noexcept {
  struct stat facts;
  if (sys::fstatat(list, "1", &facts, AT_SYMLINK_NOFOLLOW) != -ENOENT) return false;
  const int there = sys::kill(1, 0);
  return there == 0 || there == -EPERM;
}

}  // namespace instance_guard::platform
