// layer 1: what another process is and may do now, so that a child can be given just that (Linux).
//
// The warden starts children in its owner's name. It must not do more than its owner could, and
// a child must look as if the owner had started it. Async-signal-safe.
#pragma once

#include <errno.h>
#include <linux/capability.h>
#include <stddef.h>
#include <stdint.h>

#include "linux_calls.hpp"
#include "linux_proc.hpp"
#include "linux_process.hpp"

namespace instance_guard::platform {

/// Scheduling as sched_setattr(2) takes it, version 0 of its struct.
struct scheduling {
  uint32_t size = 48;
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;
  uint64_t deadline = 0;
  uint64_t period = 0;
};

/// True where the rights of another process can be read, and compared.
inline constexpr bool can_read_rights = true;

inline constexpr int limit_count = RLIM_NLIMITS;
inline constexpr size_t cpu_bytes = 512;

/// What a child takes over from the thread that asked for it.
struct process_attributes {
  mode_t file_mask = 022;
  sys::signal_bits ignored = 0;
  rlimit limits[limit_count] = {};
  scheduling schedule = {};
  long cpus_size = 0;  ///< bytes of cpus that are valid; <= 0: unknown
  unsigned char cpus[cpu_bytes] = {};
};

/// What a process may do: the lines of its status file that say so, and its root and namespaces.
struct process_rights {
  size_t size = 0;
  char text[2048] = {};       ///< Uid, Gid, Groups, Cap*, NoNewPrivs, Seccomp*
  bool cut = false;           ///< there was more: not comparable
  uint64_t capabilities = 0;  ///< permitted
  uint64_t places[10] = {};   ///< root's device and inode, namespaces; 0: not asked
};

namespace linux_detail {

INSTANCE_GUARD_NO_SANITIZE inline bool starts_with(const char* text, const char* end, const char* prefix) noexcept {
  for (; *prefix != '\0'; ++text, ++prefix)
    if (text == end || *text != *prefix) return false;
  return true;
}

INSTANCE_GUARD_NO_SANITIZE inline uint64_t number_in(const char* text, const char* end, unsigned base) noexcept {
  uint64_t value = 0;
  while (text != end && (*text == ' ' || *text == '\t')) ++text;
  for (; text != end; ++text) {
    const char c = *text;
    unsigned digit = 99;
    if (c >= '0' && c <= '9') digit = static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') digit = static_cast<unsigned>(c - 'a' + 10);
    if (digit >= base) break;
    value = value * base + digit;
  }
  return value;
}

}  // namespace linux_detail

/// Reads a status file (`pread` on an open descriptor). 0, or a negated errno: -ESRCH once the
/// process has ended.
INSTANCE_GUARD_NO_SANITIZE inline int read_status(int status_file, process_rights& rights, mode_t& file_mask,
                                                  sys::signal_bits& ignored) noexcept {
  using linux_detail::number_in;
  using linux_detail::starts_with;
  char text[8192];
  long size = 0;
  for (;;) {
    const size_t room = sizeof text - static_cast<size_t>(size);
    const long got = sys::pread(status_file, text + size, room, size);
    if (got == -EINTR) continue;
    if (got < 0) return static_cast<int>(got);
    size += got;
    // The kernel composes it whole for one read; to ask for the end would compose it once more.
    const bool whole = got > 0 && got < static_cast<long>(room) && text[size - 1] == '\n';
    if (got == 0 || whole || size == static_cast<long>(sizeof text)) break;
  }
  rights.size = 0;
  rights.cut = size == static_cast<long>(sizeof text);
  bool complete = false;
  for (const char *line = text, *end = text + size; line != end;) {
    const char* next = line;
    while (next != end && *next != '\n') ++next;
    bool counts = false;
    switch (*line) {
      case 'U':
        if (starts_with(line, next, "Umask:")) file_mask = static_cast<mode_t>(number_in(line + 6, next, 8));
        counts = starts_with(line, next, "Uid:");
        break;
      case 'G': counts = starts_with(line, next, "Gid:") || starts_with(line, next, "Groups:"); break;
      case 'S':
        if (starts_with(line, next, "SigIgn:")) ignored = number_in(line + 7, next, 16);
        counts = starts_with(line, next, "Seccomp");
        break;
      case 'C':
        counts = starts_with(line, next, "Cap");
        if (starts_with(line, next, "CapPrm:")) {
          rights.capabilities = number_in(line + 7, next, 16);
          complete = true;
        }
        break;
      case 'N': counts = starts_with(line, next, "NoNewPrivs:"); break;
      default: break;
    }
    if (counts) {
      for (const char* at = line; at != next; ++at) {
        if (rights.size == sizeof rights.text) rights.cut = true;
        else rights.text[rights.size++] = *at;
      }
    }
    line = next == end ? end : next + 1;
  }
  return complete ? 0 : -ESRCH;
}

/// Reads root and namespaces. Only who has CAP_SYS_CHROOT or CAP_SYS_ADMIN, as `holder` says, can
/// change them and keep its capabilities as they were, so others are not asked. `directory` is
/// /proc/<pid> or a /proc/<pid>/task/<tid>. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int read_places(int directory, const process_rights& holder,
                                                  process_rights& rights) noexcept {
  constexpr uint64_t able = uint64_t{1} << CAP_SYS_ADMIN | uint64_t{1} << CAP_SYS_CHROOT;
  for (uint64_t& place : rights.places) place = 0;
  if ((holder.capabilities & able) == 0) return 0;
  struct stat facts;
  int result = sys::fstatat(directory, "root", &facts, 0);
  if (result < 0) return result;
  rights.places[0] = facts.st_dev;
  rights.places[1] = facts.st_ino;
  constexpr const char* names[] = {"ns/user", "ns/mnt", "ns/net",    "ns/pid_for_children",
                                   "ns/ipc",  "ns/uts", "ns/cgroup", "ns/time_for_children"};
  uint64_t* place = rights.places + 2;
  for (const char* name : names) {
    // "net:[4026531840]": the text alone costs half of what stat does.
    char text[64];
    const long size = sys::readlinkat(directory, name, text, sizeof text);
    if (size < 0 && size != -ENOENT) return static_cast<int>(size);  // a kernel without this namespace
    const char *at = text, *end = text + (size > 0 ? size : 0);
    while (at != end && (*at < '0' || *at > '9')) ++at;
    *place++ = linux_detail::number_in(at, end, 10);
  }
  return 0;
}

/// False if what the caller forks would be in another pid namespace than itself, after unshare(2) or setns(2). The
/// first one there is its init: with it the namespace would end, and the caller could fork nobody any more.
INSTANCE_GUARD_NO_SANITIZE inline bool forks_into_own_pid_namespace() noexcept {
  constexpr const char* children = "/proc/thread-self/ns/pid_for_children";
  char own[64], other[64];
  const long size = sys::readlinkat(AT_FDCWD, "/proc/thread-self/ns/pid", own, sizeof own);
  const long size_of_other = sys::readlinkat(AT_FDCWD, children, other, sizeof other);
  if (size_of_other == -ENOENT) {
    struct stat facts;  // there, but of nothing yet: of a namespace that has no init
    return sys::fstatat(AT_FDCWD, children, &facts, AT_SYMLINK_NOFOLLOW) != 0;
  }
  if (size < 0 || size_of_other < 0) return true;  // no such /proc: nothing is known
  for (long i = 0; i < size; ++i)
    if (size != size_of_other || own[i] != other[i]) return false;
  return true;
}

/// True if both may do the same, as far as their status files show.
INSTANCE_GUARD_NO_SANITIZE inline bool same_rights(const process_rights& a, const process_rights& b) noexcept {
  if (a.cut || b.cut || a.size != b.size) return false;
  for (size_t i = 0; i < a.size; ++i)
    if (a.text[i] != b.text[i]) return false;
  return true;
}

/// True if both have the same root and namespaces.
INSTANCE_GUARD_NO_SANITIZE inline bool same_places(const process_rights& a, const process_rights& b) noexcept {
  for (size_t i = 0; i < sizeof a.places / sizeof a.places[0]; ++i)
    if (a.places[i] != b.places[i]) return false;
  return true;
}

/// Scheduling of a process, whose children inherit it. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int read_schedule(pid_t process, scheduling& out) noexcept {
  return static_cast<int>(system_call(SYS_sched_getattr, process, word(&out), sizeof out, 0));
}
INSTANCE_GUARD_NO_SANITIZE inline int set_schedule(pid_t process, const scheduling& what) noexcept {
  return static_cast<int>(system_call(SYS_sched_setattr, process, word(&what), 0));
}

/// Asks for the processor in short slices: whoever does is run soon when it wakes, and gets no more
/// than its share (sched_setattr(2); older kernels than Linux 6.12 take no notice). Without it the
/// warden, woken by the exec of a child, waited until that child had ended: a spawn took 610 us
/// instead of 220, on two processors without a common cache.
INSTANCE_GUARD_NO_SANITIZE inline void ask_for_short_slices() noexcept {
  scheduling how;
  if (read_schedule(0, how) < 0 || how.policy != 0) return;
  how.runtime = 100'000;  // ns, the shortest
  set_schedule(0, how);
}

/// Limits, scheduling and processors of a thread (0: the caller). What can't be read stays as it
/// was in `out`.
INSTANCE_GUARD_NO_SANITIZE inline void read_attributes(pid_t thread, process_attributes& out) noexcept {
  for (int i = 0; i < limit_count; ++i) sys::prlimit(thread, i, nullptr, &out.limits[i]);
  read_schedule(thread, out.schedule);
  out.cpus_size = system_call(SYS_sched_getaffinity, thread, cpu_bytes, word(out.cpus));
}

/// Gives the caller what differs from `own`, what it has now. What it may not do stays undone:
/// it may do what `own`'s process may, and that is what its owner may.
INSTANCE_GUARD_NO_SANITIZE inline void take_attributes(const process_attributes& wanted,
                                                       const process_attributes& own) noexcept {
  sys::umask(wanted.file_mask);
  const scheduling &a = wanted.schedule, &b = own.schedule;
  if (a.policy != b.policy || a.nice != b.nice || a.priority != b.priority || a.flags != b.flags ||
      a.runtime != b.runtime)
    set_schedule(0, a);
  bool other_cpus = wanted.cpus_size != own.cpus_size;
  for (long i = 0; i < wanted.cpus_size && !other_cpus; ++i) other_cpus = wanted.cpus[i] != own.cpus[i];
  if (other_cpus && wanted.cpus_size > 0) system_call(SYS_sched_setaffinity, 0, wanted.cpus_size, word(wanted.cpus));
  for (int i = 0; i < limit_count; ++i) {
    const rlimit &x = wanted.limits[i], &y = own.limits[i];
    if (x.rlim_cur != y.rlim_cur || x.rlim_max != y.rlim_max) sys::prlimit(0, i, &x, nullptr);
  }
  for (int number = 1; number <= 64; ++number)
    if ((wanted.ignored & sys::signal_bit(number)) != 0) set_disposition(number, true);
}

}  // namespace instance_guard::platform
