// layer 3: the warden does nothing that its owner could not do itself.
//
// Its rights are those that the owner had when it started the warden. An owner that has given up
// some since (a user id, a capability, a namespace) must not get them back through a child.
// What the owner is *now* is asked from the kernel, never from the request.
#pragma once

#include "../platform/platform.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Writes "task/<thread>" to `out` (32 bytes).
INSTANCE_GUARD_NO_SANITIZE inline void thread_path(char* out, pid_t thread) noexcept {
  char* at = out;
  for (const char* from = "task/"; *from != '\0';) *at++ = *from++;
  char digits[12];
  int count = 0;
  for (unsigned value = static_cast<unsigned>(thread); value != 0 || count == 0; value /= 10U)
    digits[count++] = static_cast<char>('0' + value % 10U);
  while (count > 0) *at++ = digits[--count];
  *at = '\0';
}

/// Reads rights, umask and ignored signals of the owner, or of one of its threads (0: the main
/// one). 0, or a negated errno; -ESRCH also for a thread that is not the owner's.
INSTANCE_GUARD_NO_SANITIZE inline int read_owner(const warden_state& warden, pid_t thread,
                                                 platform::process_rights& rights,
                                                 platform::process_attributes& attributes) noexcept {
  if (thread == 0 || thread == warden.owner) {
    const int result = platform::read_status(warden.owner_status, rights, attributes.file_mask,
                                             attributes.ignored);
    return result < 0 ? result : platform::read_places(warden.owner_directory, rights);
  }
  if (thread < 0) return -ESRCH;
  char path[32];
  thread_path(path, thread);
  const int directory = sys::openat(warden.owner_directory, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory == -ENOENT ? -ESRCH : directory;
  const int status = sys::openat(directory, "status", O_RDONLY | O_CLOEXEC);
  int result = status;
  if (status >= 0) {
    result = platform::read_status(status, rights, attributes.file_mask, attributes.ignored);
    if (result >= 0) result = platform::read_places(directory, rights);
    sys::close(status);
  }
  sys::close(directory);
  return result;
}

/// Whether a request of `thread` may be carried out: 0, -EKEYREJECTED when the owner is no
/// longer what it was, another negated errno when that can't be found out.
INSTANCE_GUARD_NO_SANITIZE inline int check_owner(const warden_state& warden, pid_t thread,
                                                  platform::process_attributes& attributes) noexcept {
  platform::process_rights rights;
  const int result = read_owner(warden, thread, rights, attributes);
  if (result < 0) return result;
  return platform::same_rights(rights, warden.rights) ? 0 : -EKEYREJECTED;
}

INSTANCE_GUARD_NO_SANITIZE inline int check_owner(const warden_state& warden, pid_t thread) noexcept {
  platform::process_attributes unused;
  return check_owner(warden, thread, unused);
}

}  // namespace instance_guard::detail
