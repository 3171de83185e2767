// layer 1: no group of processes that the system ends at once: POSIX has none but process groups.
//
// The names of linux_control_group.hpp.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

inline constexpr bool can_end_control_groups = false;
inline constexpr size_t control_group_path_size = 1;

struct control_group {
  int directory = -1;
  int parent = -1;
  int kill = -1;
};

namespace cgroup {
INSTANCE_GUARD_NO_SANITIZE inline int for_each_member(int, bool (*)(pid_t, void*), void*) noexcept { return -ENOSYS; }
}  // namespace cgroup

INSTANCE_GUARD_NO_SANITIZE inline void close_control_group(control_group&) noexcept {}
INSTANCE_GUARD_NO_SANITIZE inline int remove_control_group(control_group&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int make_control_group(control_group&, pid_t, uint64_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int enter_control_group(const control_group&, pid_t) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int kill_control_group(const control_group&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline bool has_groups_below(const control_group&) noexcept { return false; }
INSTANCE_GUARD_NO_SANITIZE inline void freeze_control_group(const control_group&, bool) noexcept {}
INSTANCE_GUARD_NO_SANITIZE inline bool is_control_group_removed(const control_group&) noexcept { return false; }
INSTANCE_GUARD_NO_SANITIZE inline bool is_control_group_empty(const control_group&) noexcept { return false; }
INSTANCE_GUARD_NO_SANITIZE inline int find_control_group(pid_t, uint64_t, char (&)[control_group_path_size]) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int open_control_group(control_group&, const char*, pid_t, uint64_t, uid_t) noexcept {
  return -ENOSYS;
}

}  // namespace instance_guard::platform
