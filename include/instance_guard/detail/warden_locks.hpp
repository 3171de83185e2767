// layer 3: the warden's copies of its owner's locks.
//
// A lock is held as long as any copy of it is open, so a new instance can't start beside the
// children of the old one. The file goes only after an end in order: without a goodbye it
// stays as the record of what was. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "warden_spawn.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

inline constexpr uint32_t max_kept_locks = 64;

INSTANCE_GUARD_NO_SANITIZE inline void close_lock(warden_lock& lock, bool unlink) noexcept {
  if (unlink) {
    struct stat facts;
    // Unlinked while held: whoever waits for the lock finds a file that is no longer there.
    if (sys::fstatat(lock.directory, lock.name, &facts, AT_SYMLINK_NOFOLLOW) == 0 && facts.st_dev == lock.device &&
        facts.st_ino == lock.inode) {
      sys::unlinkat(lock.directory, lock.refused);
      sys::unlinkat(lock.directory, lock.name);
    }
  }
  close_fd(lock.file);
  close_fd(lock.directory);
  close_fd(lock.socket);
}

INSTANCE_GUARD_NO_SANITIZE inline bool is_file_name(const char (&name)[80]) noexcept {
  for (size_t i = 0; i < sizeof name; ++i) {
    if (name[i] == '/') return false;
    if (name[i] == '\0') return i != 0;
  }
  return false;
}

/// keep_lock and replace_lock: takes over three descriptors. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int take_lock(warden_state& warden, const wire::lock_request& request,
                                                wire::received& got) noexcept {
  const unsigned wanted = request.has_socket ? 4 : 3;
  if (got.count < wanted || !is_file_name(request.file) || !is_file_name(request.refused)) return -EINVAL;
  warden_lock lock;
  lock.slot = request.slot;
  lock.device = request.device;
  lock.inode = request.inode;
  for (size_t i = 0; i < sizeof lock.name; ++i) {
    lock.name[i] = request.file[i];
    lock.refused[i] = request.refused[i];
  }
  uint32_t at = 0;
  while (at < warden.locks.size() && (warden.locks[at].slot != lock.slot || warden.locks[at].dropped)) ++at;
  if (at == warden.locks.size()) {
    if (at == max_kept_locks) return -ENOSPC;
    if (!warden.locks.push(warden_lock{})) return -ENOMEM;
  } else {
    close_lock(warden.locks[at], false);  // after the new one has arrived: no gap
  }
  lock.file = got.descriptors[1];
  lock.directory = got.descriptors[2];
  if (request.has_socket) lock.socket = got.descriptors[3];
  for (unsigned i = 1; i < wanted; ++i) got.descriptors[i] = -1;
  warden.locks[at] = lock;
  return 0;
}

INSTANCE_GUARD_NO_SANITIZE inline int drop_lock(warden_state& warden, int slot) noexcept {
  for (warden_lock& each : warden.locks) {
    if (each.slot != slot || each.dropped) continue;
    each.dropped = true;
    warden.changed = true;
    return 0;
  }
  return -ENOENT;
}

/// Lets dropped locks go, if nothing is left that they protect.
INSTANCE_GUARD_NO_SANITIZE inline void release_dropped_locks(warden_state& warden) noexcept {
  if (!warden.empty) return;
  for (uint32_t i = 0; i < warden.locks.size();) {
    if (!warden.locks[i].dropped) {
      ++i;
      continue;
    }
    close_lock(warden.locks[i], true);
    warden.locks.remove(i);
  }
}

/// At the end.
INSTANCE_GUARD_NO_SANITIZE inline void release_locks(warden_state& warden, bool unlink) noexcept {
  for (warden_lock& each : warden.locks) close_lock(each, unlink || each.dropped);
  warden.locks.clear();
}

/// Once a day the files get a new date, so that nobody takes them for left over.
INSTANCE_GUARD_NO_SANITIZE inline void touch_locks(warden_state& warden, int64_t now) noexcept {
  if (now < warden.touch_locks_at) return;
  for (const warden_lock& each : warden.locks) sys::futimens(each.file, nullptr);
  warden.touch_locks_at = now + touch_pause;
}

}  // namespace instance_guard::detail
