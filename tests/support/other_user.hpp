// Becoming an ordinary user, for good. For a forked child of a test that runs as root.
#pragma once

#include <grp.h>
#include <sys/types.h>
#include <unistd.h>

namespace support {

inline bool is_root() { return ::geteuid() == 0; }

inline constexpr uid_t nobody = 65'534;

/// False if that is not possible.
inline bool become(uid_t user) {
  return ::setgroups(0, nullptr) == 0 && ::setresgid(user, user, user) == 0 && ::setresuid(user, user, user) == 0;
}

}  // namespace support
