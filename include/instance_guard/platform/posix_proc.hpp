// layer 1: what POSIX tells of another process: whether it exists, its group and session.
//
// The names of linux_proc.hpp. There is no list of processes and no start time: an identity is a
// pid alone, is never complete, and so nobody is signalled by it. Async-signal-safe.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

struct process_stat {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  int terminal = 0;
  char state = '?';
  int threads = 0;
  bool executed = false;  ///< a program since it was forked; false: not known
  bool exiting = true;    ///< it may be
  bool kernel_thread = false;
  uint64_t start_time = 0;
  uint64_t cpu_time = 0;
  uint64_t virtual_size = 0;
  uint64_t resident_pages = 0;
  char name[64] = {};
};

/// A path that does not exist: there is no /proc here.
INSTANCE_GUARD_NO_SANITIZE inline char* proc_path(char* out, pid_t, const char*) noexcept {
  char* at = out;
  for (const char* from = "/dev/null/proc"; *from != '\0';) *at++ = *from++;
  *at = '\0';
  return out;
}

/// Reads a whole small file into `out`, ends it with NUL; the size, or a negated errno.
/// What does not fit is dropped.
INSTANCE_GUARD_NO_SANITIZE inline long read_small_file(const char* path, char* out, size_t size) noexcept {
  const int file = sys::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  size_t used = 0;
  long got = 0;
  while (used + 1 < size) {
    got = sys::read(file, out + used, size - 1 - used);
    if (got == -EINTR) continue;
    if (got <= 0) break;
    used += static_cast<size_t>(got);
  }
  sys::close(file);
  if (got < 0) return got;
  out[used] = '\0';
  return static_cast<long>(used);
}

/// 0 if the process exists (a zombie does); -ESRCH if not. Only pid, group and session are told.
INSTANCE_GUARD_NO_SANITIZE inline int read_process_stat(pid_t pid, process_stat& out) noexcept {
  if (pid <= 0) return -ESRCH;
  const int there = sys::kill(pid, 0);
  if (there < 0 && there != -EPERM) return there;
  out = process_stat{};
  out.pid = pid;
  const pid_t group = sys::negated([&] { return ::getpgid(pid); });
  const pid_t session = sys::negated([&] { return ::getsid(pid); });
  out.group = group > 0 ? group : 0;
  out.session = session > 0 ? session : 0;
  return 0;
}

INSTANCE_GUARD_NO_SANITIZE inline bool is_process(pid_t id) noexcept {
  const int there = sys::kill(id, 0);
  return id > 0 && (there == 0 || there == -EPERM);
}

/// False: who else there is can't be asked.
inline constexpr bool can_list_processes = false;

INSTANCE_GUARD_NO_SANITIZE inline int for_each_process(void*, size_t, bool (*)(pid_t, void*), void*) noexcept {
  return -ENOSYS;
}

INSTANCE_GUARD_NO_SANITIZE inline uint64_t pid_namespace_of(pid_t) noexcept { return 0; }

INSTANCE_GUARD_NO_SANITIZE inline bool boot_id(unsigned char (&)[16]) noexcept { return false; }

}  // namespace instance_guard::platform
