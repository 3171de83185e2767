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

/// Opens what /proc says of the owner; it stays open, so that no other process can be taken for it.
/// 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int open_owner(warden_state& warden, pid_t owner) noexcept {
  char path[64];
  const int directory = sys::open(platform::proc_path(path, owner, ""), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  const int status = sys::openat(directory, "status", O_RDONLY | O_CLOEXEC);
  if (status < 0) {
    sys::close(directory);
    return status;
  }
  if (warden.owner_directory >= 0) sys::close(warden.owner_directory);
  if (warden.owner_status >= 0) sys::close(warden.owner_status);
  warden.owner_directory = directory;
  warden.owner_status = status;
  return 0;
}

/// Compares ids, capabilities and filters of a process or thread with the warden's, and fills in
/// umask and ignored signals. 0, -EKEYREJECTED, or another negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int compare_status(const platform::process_rights& own, int status,
                                                     platform::process_attributes& attributes) noexcept {
  platform::process_rights rights;
  const int result = platform::read_status(status, rights, attributes.file_mask, attributes.ignored);
  if (result < 0) return result;
  return platform::same_rights(rights, own) ? 0 : -EKEYREJECTED;
}

/// Compares root and namespaces of the one whose directory in /proc this is. 0, or -EKEYREJECTED,
/// also when it can't be looked at: then it is not proven to be the same.
INSTANCE_GUARD_NO_SANITIZE inline int compare_places(const platform::process_rights& own, int directory) noexcept {
  platform::process_rights rights;
  if (platform::read_places(directory, own, rights) < 0) return -EKEYREJECTED;
  return platform::same_places(rights, own) ? 0 : -EKEYREJECTED;
}

/// Both. Places come last: who has lost rights may not even be allowed to look at them.
INSTANCE_GUARD_NO_SANITIZE inline int compare_rights(const warden_state& warden, int directory, int status,
                                                     platform::process_attributes& attributes) noexcept {
  const int result = compare_status(warden.rights, status, attributes);
  return result < 0 ? result : compare_places(warden.rights, directory);
}

/// Whether a request of the owner's `thread` (0: the main one) may be carried out; fills in umask
/// and ignored signals. 0, -EKEYREJECTED when it is no longer what the owner was when it started
/// the warden, or another negated errno; -ESRCH also for a thread that is not the owner's.
INSTANCE_GUARD_NO_SANITIZE inline int check_owner(const warden_state& warden, pid_t thread,
                                                  platform::process_attributes& attributes) noexcept {
  if constexpr (!platform::can_read_rights) return 0;
  if (thread == 0 || thread == warden.owner)
    return compare_rights(warden, warden.owner_directory, warden.owner_status, attributes);
  if (thread < 0) return -ESRCH;
  char path[32];
  thread_path(path, thread);
  const int directory = sys::openat(warden.owner_directory, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory == -ENOENT ? -ESRCH : directory;
  const int status = sys::openat(directory, "status", O_RDONLY | O_CLOEXEC);
  int result = status;
  if (status >= 0) {
    result = compare_rights(warden, directory, status, attributes);
    sys::close(status);
  }
  sys::close(directory);
  return result;
}

INSTANCE_GUARD_NO_SANITIZE inline int check_owner(const warden_state& warden, pid_t thread) noexcept {
  platform::process_attributes unused;
  return check_owner(warden, thread, unused);
}

}  // namespace instance_guard::detail
