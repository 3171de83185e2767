// layer 1: a control group that the kernel ends at once (Linux, cgroups(7), version 2, since 5.14).
//
// Used only where the group of the caller was handed to it: a service manager marks such a group
// with the attribute user.delegate or trusted.delegate (systemd: Delegate=yes). Below any other the
// manager alone may make groups. Async-signal-safe; no heap.
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/vfs.h>

#include "linux_calls.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

inline constexpr bool can_end_control_groups = true;

/// The beginning of the name of each group that is made here.
inline constexpr char control_group_prefix[] = "instance-guard.";

inline constexpr size_t control_group_path_size = 4096;

struct control_group {
  int directory = -1;
  int parent = -1;
  int kill = -1;       ///< cgroup.kill, open for writing
  char name[64] = {};  ///< in its parent
};

namespace cgroup {

INSTANCE_GUARD_NO_SANITIZE inline char* append(char* to, const char* text) noexcept {
  while (*text != '\0') *to++ = *text++;
  *to = '\0';
  return to;
}

INSTANCE_GUARD_NO_SANITIZE inline char* append_number(char* to, uint64_t value) noexcept {
  char digits[24];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10U);
    value /= 10U;
  } while (value != 0U);
  while (count > 0) *to++ = digits[--count];
  *to = '\0';
  return to;
}

/// Whoever makes it is in its name: a process that was never another one.
INSTANCE_GUARD_NO_SANITIZE inline void name_for(char (&name)[64], pid_t pid, uint64_t start_time) noexcept {
  char* at = append_number(append(name, control_group_prefix), static_cast<uint64_t>(pid));
  append_number(append(at, "-"), start_time);
}

/// The root of the hierarchy, where systemd mounts it, alone or beside version 1.
INSTANCE_GUARD_NO_SANITIZE inline int open_root() noexcept {
  constexpr const char* paths[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
  for (const char* path : paths) {
    const int root = sys::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) continue;
    struct statfs facts = {};
    if (system_call(SYS_fstatfs, root, word(&facts)) == 0 && facts.f_type == 0x63677270) return root;
    sys::close(root);
  }
  return -ENOENT;
}

/// Opens a group by its path, which begins with a slash; links are not followed, the tree is not left.
INSTANCE_GUARD_NO_SANITIZE inline int open_group(const char* path) noexcept {
  int at = open_root();
  while (at >= 0) {
    while (*path == '/') ++path;
    if (*path == '\0') break;
    char part[256];
    size_t size = 0;
    while (*path != '\0' && *path != '/' && size + 1 < sizeof part) part[size++] = *path++;
    part[size] = '\0';
    const bool up = part[0] == '.' && (size == 1 || (part[1] == '.' && size == 2));
    const int next = up || (*path != '\0' && *path != '/')
                         ? -EINVAL
                         : sys::openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    sys::close(at);
    at = next;
  }
  return at;
}

/// The path of the caller's own group. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int own_path(char (&path)[control_group_path_size]) noexcept {
  char text[control_group_path_size + 64];
  const long size = read_small_file("/proc/self/cgroup", text, sizeof text);
  if (size < 0) return static_cast<int>(size);
  for (const char* at = text; *at != '\0';) {
    const bool found = at[0] == '0' && at[1] == ':' && at[2] == ':' && at[3] == '/';
    if (found) at += 3;
    size_t used = 0;
    for (; *at != '\0' && *at != '\n'; ++at)
      if (found && used + 1 < sizeof path) path[used++] = *at;
    if (found) {
      path[used] = '\0';
      return *at == '\n' && used + 1 < sizeof path ? 0 : -ENAMETOOLONG;
    }
    if (*at == '\n') ++at;
  }
  return -ENOENT;
}

/// Calls `visit` for each process of the group, until it returns false. 0 stands for one that
/// the caller's pid namespace does not show. Threads of one process come once.
INSTANCE_GUARD_NO_SANITIZE inline int for_each_member(int group, bool (*visit)(pid_t, void*), void* context) noexcept {
  const int file = sys::openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  if (file < 0) return file;
  char text[1024];
  uint64_t value = 0;
  long got = 0;
  bool more = true;
  while (more && ((got = sys::read(file, text, sizeof text)) > 0 || got == -EINTR))
    for (long i = 0; i < got && more; ++i) {
      if (text[i] != '\n') {
        value = value * 10 + static_cast<uint64_t>(text[i] - '0');
        continue;
      }
      more = visit(static_cast<pid_t>(value), context);
      value = 0;
    }
  sys::close(file);
  return got < 0 ? static_cast<int>(got) : 0;
}

INSTANCE_GUARD_NO_SANITIZE inline bool is_delegated(int group) noexcept {
  constexpr const char* names[] = {"user.delegate", "trusted.delegate"};
  for (const char* name : names) {
    char value[8] = {};
    if (system_call(SYS_fgetxattr, group, word(name), word(value), sizeof value) == 1 && value[0] == '1') return true;
  }
  return false;
}

/// Whether the caller is in that group: what is mounted there may be another view of the hierarchy.
INSTANCE_GUARD_NO_SANITIZE inline bool is_own(int group) noexcept {
  struct search {
    pid_t self;
    bool found;
  } own = {sys::getpid(), false};
  const auto visit = [](pid_t pid, void* context) noexcept {
    auto& wanted = *static_cast<search*>(context);
    wanted.found = pid == wanted.self;
    return !wanted.found;
  };
  return for_each_member(group, visit, &own) == 0 && own.found;
}

/// Whether a small file of the group has that word.
INSTANCE_GUARD_NO_SANITIZE inline bool tells(int group, const char* name, const char* word) noexcept {
  const int file = sys::openat(group, name, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  char text[128] = {};
  sys::read(file, text, sizeof text - 1);
  sys::close(file);
  for (const char* at = text; *at != '\0'; ++at) {
    size_t same = 0;
    while (word[same] != '\0' && at[same] == word[same]) ++same;
    if (word[same] == '\0') return true;
  }
  return false;
}

INSTANCE_GUARD_NO_SANITIZE inline int write_to(int group, const char* file, const char* text, size_t size) noexcept {
  const int open = sys::openat(group, file, O_WRONLY | O_CLOEXEC);
  if (open < 0) return open;
  const long result = sys::write(open, text, size);
  sys::close(open);
  return result < 0 ? static_cast<int>(result) : 0;
}

}  // namespace cgroup

/// Lets go of the group, which stays.
INSTANCE_GUARD_NO_SANITIZE inline void close_control_group(control_group& group) noexcept {
  int* const descriptors[] = {&group.kill, &group.directory, &group.parent};
  for (int* each : descriptors) {
    if (*each >= 0) sys::close(*each);
    *each = -1;
  }
}

/// Removes the group if nobody lives in it, and lets go of it. 0, or a negated errno: -EBUSY.
INSTANCE_GUARD_NO_SANITIZE inline int remove_control_group(control_group& group) noexcept {
  if (group.parent < 0) return 0;
  const int result = static_cast<int>(system_call(SYS_unlinkat, group.parent, word(group.name), AT_REMOVEDIR));
  close_control_group(group);
  return result;
}

namespace cgroup {

/// Reads the name of a group that was made here. False: it is none.
INSTANCE_GUARD_NO_SANITIZE inline bool maker_of(const char* name, pid_t& pid, uint64_t& start_time) noexcept {
  for (const char* prefix = control_group_prefix; *prefix != '\0';)
    if (*name++ != *prefix++) return false;
  uint64_t parts[2] = {0, 0};
  int part = 0;
  for (; *name != '\0'; ++name) {
    if (*name == '-' && part == 0) part = 1;
    else if (*name < '0' || *name > '9' || parts[part] > UINT64_MAX / 20) return false;
    else parts[part] = parts[part] * 10 + static_cast<uint64_t>(*name - '0');
  }
  pid = static_cast<pid_t>(parts[0]);
  start_time = parts[1];
  return part == 1 && parts[0] > 0 && parts[0] <= INT32_MAX;
}

/// Removes the groups of wardens that were killed. Only empty ones can be removed; others are let go on, if
/// their warden held them still when it was killed.
INSTANCE_GUARD_NO_SANITIZE inline void remove_abandoned(int parent) noexcept {
  alignas(8) char entries[4096];
  for (long got = 0; (got = sys::getdents(parent, entries, sizeof entries)) > 0;)
    for (long at = 0; at < got;) {
      uint16_t length = 0;
      __builtin_memcpy(&length, entries + at + 16, sizeof length);
      const char* name = entries + at + 19;
      at += length;
      pid_t pid = 0;
      uint64_t start_time = 0;
      process_stat facts;
      if (!maker_of(name, pid, start_time)) continue;
      const int result = read_process_stat(pid, facts);
      // One whose owner lives and has not reaped it is a zombie.
      const bool dead = result == -ENOENT || result == -ESRCH ||
                        (result == 0 && (facts.start_time != start_time || facts.state == 'Z' || facts.state == 'X'));
      if (!dead || system_call(SYS_unlinkat, parent, word(name), AT_REMOVEDIR) == 0) continue;
      const int group = sys::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (group < 0) continue;
      if (tells(group, "cgroup.freeze", "1")) write_to(group, "cgroup.freeze", "0", 1);
      sys::close(group);
    }
}

}  // namespace cgroup

/// Makes a group below the caller's own, if that is delegated; the caller stays outside. It is named
/// after this process. The caller has one thread: its umask is another for a moment. 0, or a negated
/// errno; -ENOENT: there is no delegated group here.
INSTANCE_GUARD_NO_SANITIZE inline int make_control_group(control_group& group, pid_t pid,
                                                         uint64_t start_time) noexcept {
  char path[control_group_path_size];
  int result = cgroup::own_path(path);
  if (result < 0) return result;
  const int parent = cgroup::open_group(path);
  if (parent < 0) return parent;
  if (!cgroup::is_delegated(parent) || !cgroup::is_own(parent)) {
    sys::close(parent);
    return -ENOENT;
  }
  cgroup::remove_abandoned(parent);
  group.parent = parent;
  cgroup::name_for(group.name, pid, start_time);
  const mode_t mask = sys::umask(022);
  result = static_cast<int>(system_call(SYS_mkdirat, parent, word(group.name), 0755));
  sys::umask(mask);
  if (result == 0) {
    result = group.directory = sys::openat(parent, group.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (result >= 0) result = group.kill = sys::openat(group.directory, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (result < 0) remove_control_group(group);
  } else {
    sys::close(parent);
    group.parent = -1;
  }
  return result < 0 ? result : 0;
}

/// Moves a process that has one thread and no children into the group. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int enter_control_group(const control_group& group, pid_t pid) noexcept {
  char text[24];
  const char* end = cgroup::append_number(text, static_cast<uint64_t>(pid));
  return cgroup::write_to(group.directory, "cgroup.procs", text, static_cast<size_t>(end - text));
}

/// SIGKILL to everybody in the group and below it, also to whom they start meanwhile.
INSTANCE_GUARD_NO_SANITIZE inline int kill_control_group(const control_group& group) noexcept {
  const long result = sys::write(group.kill, "1", 1);
  return result < 0 ? static_cast<int>(result) : 0;
}

/// Whether somebody has removed the group: that is possible only while nobody lives in it.
INSTANCE_GUARD_NO_SANITIZE inline bool is_control_group_removed(const control_group& group) noexcept {
  const int file = sys::openat(group.directory, "cgroup.events", O_RDONLY | O_CLOEXEC);
  if (file >= 0) sys::close(file);
  return file == -ENOENT || file == -ENODEV;
}

/// Whether nobody lives in the group or below it.
INSTANCE_GUARD_NO_SANITIZE inline bool is_control_group_empty(const control_group& group) noexcept {
  return cgroup::tells(group.directory, "cgroup.events", "populated 0") || is_control_group_removed(group);
}

/// Whether there are groups below it: what is written to it counts for their members as well, which it does not list.
INSTANCE_GUARD_NO_SANITIZE inline bool has_groups_below(const control_group& group) noexcept {
  return !cgroup::tells(group.directory, "cgroup.stat", "nr_descendants 0\n");
}

/// Holds all in the group still, or lets them go on. Waits up to 20 ms until they are still: who
/// sleeps uninterruptibly is late. SIGKILL ends them all the same.
INSTANCE_GUARD_NO_SANITIZE inline void freeze_control_group(const control_group& group, bool still) noexcept {
  if (cgroup::write_to(group.directory, "cgroup.freeze", still ? "1" : "0", 1) < 0 || !still) return;
  const int64_t end = sys::monotonic_now() + 20'000'000;
  while (!cgroup::tells(group.directory, "cgroup.events", "frozen 1") && sys::monotonic_now() < end)
    sys::sleep_for(200'000);
}

/// The path of the group that this process, which is in the caller's own group or made the one that
/// the caller is in, has made. -ENOENT: it has none.
INSTANCE_GUARD_NO_SANITIZE inline int find_control_group(pid_t pid, uint64_t start_time,
                                                         char (&path)[control_group_path_size]) noexcept {
  int result = cgroup::own_path(path);
  if (result < 0) return result;
  char name[64];
  cgroup::name_for(name, pid, start_time);
  char* end = path;
  char* last = path;  // the slash before the last part
  for (; *end != '\0'; ++end)
    if (*end == '/') last = end;
  size_t size = 0;
  while (name[size] != '\0' && last[1 + size] == name[size]) ++size;
  if (name[size] != '\0' || last[1 + size] != '\0') {
    if (static_cast<size_t>(end - path) + sizeof name + 1 > sizeof path) return -ENAMETOOLONG;
    if (end != path + 1) *end++ = '/';  // not the root
    cgroup::append(end, name);
  }
  const int found = cgroup::open_group(path);
  if (found < 0) return found;
  sys::close(found);
  return 0;
}

/// Opens a group that a dead process has made, by a path that nobody vouches for: it must be named after
/// that process, and be its user's. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int open_control_group(control_group& group, const char* path, pid_t pid,
                                                         uint64_t start_time, uid_t user) noexcept {
  char above[control_group_path_size];
  size_t size = 0, slash = 0;
  for (; path[size] != '\0'; ++size) {
    if (size + 1 == sizeof above) return -ENAMETOOLONG;
    above[size] = path[size];
    if (path[size] == '/') slash = size;
  }
  cgroup::name_for(group.name, pid, start_time);
  const char* last = path + slash + 1;
  size_t same = 0;
  while (group.name[same] != '\0' && last[same] == group.name[same]) ++same;
  if (size == 0 || path[0] != '/' || group.name[same] != '\0' || last[same] != '\0') return -EINVAL;
  above[slash] = '\0';
  group.parent = cgroup::open_group(above);
  if (group.parent < 0) return group.parent;
  group.directory = sys::openat(group.parent, group.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int result = group.directory;
  struct stat facts = {};
  if (result >= 0) result = sys::fstat(group.directory, &facts);
  if (result >= 0 && facts.st_uid != user) result = -EPERM;
  if (result >= 0) result = group.kill = sys::openat(group.directory, "cgroup.kill", O_WRONLY | O_CLOEXEC);
  if (result >= 0) return 0;
  close_control_group(group);
  return result;
}

}  // namespace instance_guard::platform
