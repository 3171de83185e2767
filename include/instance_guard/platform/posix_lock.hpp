// layer 1: what a lock needs, with POSIX and flock(2) alone.
//
// The names of linux_lock.hpp. flock is not in POSIX, but every BSD, macOS and Solaris 11.4 has it;
// fcntl's own locks would be lost with the first close of the file, see fcntl_locking(2). There is
// no second lock without a file: one that is removed by hand lets a second holder in until the
// first calls verify(). And nobody can look at a lock without touching it: query_lock believes a
// record whose process lives, and tries a shared lock for a moment where there is none.
#pragma once

#include <sys/file.h>

#include "posix_calls.hpp"
#include "posix_proc.hpp"

namespace instance_guard::platform {

/// flock(2), never waiting. LOCK_EX or LOCK_SH; -EWOULDBLOCK: somebody else has it.
inline int flock_now(int descriptor, int kind) noexcept {
  int result = 0;
  do {
    result = sys::negated([&] { return ::flock(descriptor, kind | LOCK_NB); });
  } while (result == -EINTR);
  return result;
}

inline int mark_held(int, bool) noexcept { return -ENOSYS; }
inline int is_marked_held(int) noexcept { return -ENOSYS; }

/// The kind of a file system can't be asked: lock_options::directory should be a local one.
inline bool is_network_file_system(int) noexcept { return false; }

inline unsigned* owner_page() noexcept { return nullptr; }

// ---- no lock without a file ---------------------------------------------------------------

inline constexpr bool has_socket_lock = false;

inline int take_socket_name(const char*, size_t) noexcept { return -ENOSYS; }
inline int renew_socket_owner(int) noexcept { return -ENOSYS; }
inline int watch_socket_name(const char*, size_t) noexcept { return -ENOSYS; }
inline bool peer_user(int, uid_t&) noexcept { return false; }
inline pid_t peer_process(int) noexcept { return 0; }
template <typename Visit>
int for_each_abstract_socket(Visit&&) noexcept {
  return -ENOSYS;
}
inline int socket_name_owner(const char*, size_t, uid_t&) noexcept { return 0; }

}  // namespace instance_guard::platform
