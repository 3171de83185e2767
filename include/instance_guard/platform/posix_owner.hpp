// layer 1: what another process is and may do now, which POSIX does not tell.
//
// The names of linux_owner.hpp. A child of the warden therefore gets the umask, limits and
// niceness that the owner had when it started the warden, and nobody notices that the owner has
// given up rights since. Programs that do so start their group afterwards. Async-signal-safe.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

/// False: rights of another process can't be read.
inline constexpr bool can_read_rights = false;

struct process_attributes {
  mode_t file_mask = 022;
  sys::signal_bits ignored = 0;
};

struct process_rights {
  size_t size = 0;
};

INSTANCE_GUARD_NO_SANITIZE inline int read_status(int, process_rights&, mode_t&, sys::signal_bits&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int read_places(int, process_rights&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline bool same_rights(const process_rights&, const process_rights&) noexcept {
  return true;
}

/// Of the caller itself (0), nothing of others.
INSTANCE_GUARD_NO_SANITIZE inline void read_attributes(pid_t process, pid_t, process_attributes& out) noexcept {
  if (process != 0) return;
  out.file_mask = sys::umask(077);
  sys::umask(out.file_mask);
  for (int number = 1; number <= 64; ++number) {
    struct sigaction now = {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN)
      out.ignored |= sys::signal_bit(number);
  }
}

INSTANCE_GUARD_NO_SANITIZE inline void take_attributes(const process_attributes& wanted,
                                                       const process_attributes&) noexcept {
  sys::umask(wanted.file_mask);
  for (int number = 1; number <= 64; ++number) {
    if ((wanted.ignored & sys::signal_bit(number)) == 0) continue;
    struct sigaction action = {};
    action.sa_handler = SIG_IGN;
    ::sigaction(number, &action, nullptr);
  }
}

}  // namespace instance_guard::platform
