// layer 1: what /proc says of a process (Linux), read without allocation.
//
// Async-signal-safe; usable after any kind of fork. /proc files may be cut by a process that
// vanishes while it is read: that is -ESRCH, never half an answer.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "linux_calls.hpp"

namespace instance_guard::platform {

/// The part of /proc/<pid>/stat that identifies and places a process; see proc_pid_stat(5).
struct process_stat {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  int terminal = 0;  ///< device number of the controlling terminal, 0: none
  char state = '?';  ///< R, S, D, T, t, Z, X ...
  int threads = 0;
  bool executed = true;  ///< a program since it was forked
  bool exiting = false;  ///< its main thread is on its way out
  bool kernel_thread = false;
  uint64_t start_time = 0;      ///< clock ticks since boot (sysconf(_SC_CLK_TCK) a second)
  uint64_t cpu_time = 0;        ///< user and system, clock ticks
  uint64_t virtual_size = 0;    ///< bytes
  uint64_t resident_pages = 0;  ///< pages
  char name[64] = {};           ///< comm, as the process set it: any bytes but NUL
};

/// Writes "/proc/<pid>/<leaf>" to `out` (at least 32 bytes longer than the leaf).
INSTANCE_GUARD_NO_SANITIZE inline char* proc_path(char* out, pid_t pid, const char* leaf) noexcept {
  char* at = out;
  for (const char* from = "/proc/"; *from != '\0';) *at++ = *from++;
  char digits[16];
  int count = 0;
  unsigned value = pid > 0 ? static_cast<unsigned>(pid) : 0U;
  do {
    digits[count++] = static_cast<char>('0' + value % 10U);
    value /= 10U;
  } while (value != 0U);
  while (count > 0) *at++ = digits[--count];
  *at++ = '/';
  while (*leaf != '\0') *at++ = *leaf++;
  *at = '\0';
  return out;
}

/// Reads a whole small file into `out`, ends it with NUL; the size, or a negated errno.
/// What does not fit is dropped. A file of one line is not asked for more once its end is there.
INSTANCE_GUARD_NO_SANITIZE inline long read_small_file(const char* path, char* out, size_t size,
                                                       bool one_line = false) noexcept {
  const int file = sys::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  size_t used = 0;
  long got = 0;
  while (used + 1 < size) {
    got = sys::read(file, out + used, size - 1 - used);
    if (got == -EINTR) continue;
    if (got <= 0) break;
    used += static_cast<size_t>(got);
    if (one_line && out[used - 1] == '\n') break;
  }
  sys::close(file);
  if (got < 0) return got;
  out[used] = '\0';
  return static_cast<long>(used);
}

/// Fills `out` from the text of a stat file. False: not such a text.
/// The name is in parentheses and may itself hold any of `) (` and spaces, so the fields are
/// counted from the last ')'. `behind`, if given, is where field 25 begins.
INSTANCE_GUARD_NO_SANITIZE inline bool parse_process_stat(const char* text, size_t size, process_stat& out,
                                                          size_t* behind = nullptr) noexcept {
  size_t open = 0;
  while (open < size && text[open] != '(') ++open;
  size_t close = size;
  while (close > 0 && text[close - 1] != ')') --close;
  if (open >= size || close == 0 || close - 1 <= open) return false;
  --close;
  int64_t pid = 0;
  for (size_t i = 0; i < open && text[i] != ' '; ++i) {
    if (text[i] < '0' || text[i] > '9') return false;
    pid = pid * 10 + (text[i] - '0');
    if (pid > INT32_MAX) return false;
  }
  out.pid = static_cast<pid_t>(pid);
  size_t length = close - open - 1;
  if (length > sizeof out.name - 1) length = sizeof out.name - 1;
  for (size_t i = 0; i < length; ++i) out.name[i] = text[open + 1 + i];
  out.name[length] = '\0';
  uint64_t number[25] = {};  // number[n] is field n of the manual page
  int field = 3;
  size_t at = close + 1;
  while (at < size && field < 25) {
    while (at < size && text[at] == ' ') ++at;
    if (at >= size || text[at] == '\n') break;
    if (field == 3) {
      out.state = text[at];
      while (at < size && text[at] != ' ') ++at;
    } else {
      const bool negative = text[at] == '-';
      if (negative) ++at;
      uint64_t value = 0;
      while (at < size && text[at] >= '0' && text[at] <= '9')
        value = value * 10U + static_cast<uint64_t>(text[at++] - '0');
      number[field] = negative ? uint64_t{0} - value : value;
      while (at < size && text[at] != ' ' && text[at] != '\n') ++at;
    }
    ++field;
  }
  if (field < 25) return false;
  if (behind != nullptr) *behind = at;
  out.parent = static_cast<pid_t>(number[4]);
  out.group = static_cast<pid_t>(number[5]);
  out.session = static_cast<pid_t>(number[6]);
  out.terminal = static_cast<int>(number[7]);
  constexpr uint64_t forked_without_exec = 0x40;  // PF_FORKNOEXEC, see proc_pid_stat(5)
  constexpr uint64_t exiting = 0x4;               // PF_EXITING
  out.executed = (number[9] & forked_without_exec) == 0;
  out.exiting = (number[9] & exiting) != 0;
  constexpr uint64_t kernel_thread = 0x00200000;  // PF_KTHREAD
  out.kernel_thread = (number[9] & kernel_thread) != 0;
  out.cpu_time = number[14] + number[15];
  out.threads = static_cast<int>(number[20]);
  out.start_time = number[22];
  out.virtual_size = number[23];
  out.resident_pages = number[24];
  return true;
}

/// Reads one process. 0, -ENOENT or -ESRCH when there is none, another negated errno when
/// /proc can't be read. A thread id that is no process gives -ESRCH.
INSTANCE_GUARD_NO_SANITIZE inline int read_process_stat(pid_t pid, process_stat& out) noexcept {
  if (pid <= 0) return -ESRCH;
  char path[64];
  char text[1024];
  const long size = read_small_file(proc_path(path, pid, "stat"), text, sizeof text, true);
  if (size < 0) return static_cast<int>(size);
  if (!parse_process_stat(text, static_cast<size_t>(size), out)) return -ESRCH;
  // /proc/<tid>/stat exists for every thread, but only a leader's directory is a process:
  // its Tgid tells. The state file costs as much again, so ask only the cheap way.
  return out.pid == pid ? 0 : -ESRCH;
}

/// True if `id` is a process (a thread-group leader), not just one of its threads.
/// kill(id, 0) succeeds for both.
INSTANCE_GUARD_NO_SANITIZE inline bool is_process(pid_t id) noexcept {
  char path[64];
  char text[1024];
  const long size = read_small_file(proc_path(path, id, "status"), text, sizeof text);
  if (size <= 0) return false;
  for (long i = 0; i + 6 < size; ++i) {
    if ((i == 0 || text[i - 1] == '\n') && text[i] == 'T' && text[i + 1] == 'g' && text[i + 2] == 'i' &&
        text[i + 3] == 'd' && text[i + 4] == ':') {
      int64_t leader = 0;
      for (i += 5; i < size && text[i] != '\n'; ++i)
        if (text[i] >= '0' && text[i] <= '9' && leader <= INT32_MAX) leader = leader * 10 + (text[i] - '0');
      return leader == id;
    }
  }
  return false;
}

/// True where for_each_process() works.
inline constexpr bool can_list_processes = true;

/// Calls `visit` for each process id in an open /proc until it returns false. `buffer` holds
/// directory entries meanwhile (32 KiB reads a small host in one go). 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_process_in(int directory, void* buffer, size_t size,
                                                          bool (*visit)(pid_t, void*), void* context) noexcept {
  const char* data = static_cast<const char*>(buffer);
  long got = 0;
  bool go_on = true;
  while (go_on && (got = sys::getdents(directory, buffer, size)) > 0) {
    for (long at = 0; go_on && at < got;) {
      // struct linux_dirent64: inode 8, offset 8, length 2, type 1, name
      const unsigned length = static_cast<unsigned char>(data[at + 16]) |
                              static_cast<unsigned>(static_cast<unsigned char>(data[at + 17])) << 8;
      const char* name = data + at + 19;
      int64_t pid = 0;
      while (*name >= '0' && *name <= '9' && pid <= INT32_MAX) pid = pid * 10 + (*name++ - '0');
      if (*name == '\0' && pid > 0 && pid <= INT32_MAX) go_on = visit(static_cast<pid_t>(pid), context);
      at += length;
    }
  }
  return got < 0 ? static_cast<int>(got) : 0;
}

/// The same for /proc. -ENOENT without /proc.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_process(void* buffer, size_t size, bool (*visit)(pid_t, void*),
                                                       void* context) noexcept {
  const int directory = sys::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  const int result = for_each_process_in(directory, buffer, size, visit, context);
  sys::close(directory);
  return result;
}

/// The inode of a process's pid namespace (0: can't be read). Two processes with different
/// numbers mean different things by one pid.
INSTANCE_GUARD_NO_SANITIZE inline uint64_t pid_namespace_of(pid_t pid) noexcept {
  char path[64];
  struct stat facts;
  return sys::fstatat(AT_FDCWD, proc_path(path, pid, "ns/pid"), &facts, 0) == 0 ? facts.st_ino : 0;
}

/// The kernel's random id of this boot. False: can't be read.
INSTANCE_GUARD_NO_SANITIZE inline bool boot_id(unsigned char (&out)[16]) noexcept {
  char text[64];
  const long size = read_small_file("/proc/sys/kernel/random/boot_id", text, sizeof text);
  int digits = 0;
  for (long i = 0; i < size && digits < 32; ++i) {
    const char c = text[i];
    const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (value < 0) continue;
    auto& byte = out[digits / 2];
    byte = static_cast<unsigned char>(digits % 2 == 0 ? value << 4 : byte | value);
    ++digits;
  }
  return digits == 32;
}

}  // namespace instance_guard::platform
