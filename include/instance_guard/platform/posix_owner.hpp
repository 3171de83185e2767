// layer 1: what another process is and may do now, which POSIX does not tell.
//
// The names of linux_owner.hpp. A child of the warden therefore gets the umask, limits and
// niceness that the owner had when it started the warden; signals that the owner ignores are not
// ignored in the child; and nobody notices that the owner has given up rights since. Programs
// that do so start their group afterwards. Async-signal-safe.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

/// False: rights of another process can't be read.
inline constexpr bool can_read_rights = false;

/// Nothing of it can be set for another process.
struct scheduling {
  uint32_t policy = 0;
  int32_t nice = 0;
};

struct process_attributes {
  mode_t file_mask = 022;
  sys::signal_bits ignored = 0;
  scheduling schedule = {};
};

struct process_rights {
  size_t size = 0;
};

INSTANCE_GUARD_NO_SANITIZE inline int read_status(int, process_rights&, mode_t&, sys::signal_bits&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int read_places(int, const process_rights&, process_rights&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline bool forks_into_own_pid_namespace() noexcept { return true; }
INSTANCE_GUARD_NO_SANITIZE inline bool same_rights(const process_rights&, const process_rights&) noexcept {
  return true;
}
INSTANCE_GUARD_NO_SANITIZE inline bool same_places(const process_rights&, const process_rights&) noexcept {
  return true;
}
INSTANCE_GUARD_NO_SANITIZE inline int read_schedule(pid_t, scheduling&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int set_schedule(pid_t, const scheduling&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline void ask_for_short_slices() noexcept {}

/// Of the caller itself (0), nothing of others.
INSTANCE_GUARD_NO_SANITIZE inline void read_attributes(pid_t thread, process_attributes& out) noexcept {
  if (thread != 0) return;
  out.file_mask = sys::umask(077);
  sys::umask(out.file_mask);
}

INSTANCE_GUARD_NO_SANITIZE inline void take_attributes(const process_attributes& wanted,
                                                       const process_attributes&) noexcept {
  sys::umask(wanted.file_mask);
}

}  // namespace instance_guard::platform
