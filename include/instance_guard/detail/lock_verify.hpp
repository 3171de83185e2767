// layer 3: still the one holder? And what is done about a lock file that has vanished.
//
// Two system calls when all is well: stat of the path against the remembered file, and one
// question to whoever keeps the lock. A vanished file is put back under a second name, complete and
// locked, and only then linked to its own: a lock file never appears unlocked or half written.
#pragma once

#include <string>

#include "lock_attempt.hpp"
#include "lock_directory.hpp"
#include "lock_fork.hpp"
#include "lock_session.hpp"

namespace instance_guard::detail {

/// Writes the session's record to the lock file again. 0, or a negated errno. Holds the gate.
inline int rewrite_record(lock_session& session, const lock_slot& slot, lock_change_scope& scope) noexcept {
  if (!slot.lock.intact()) return -EBADF;
  record_text text;
  record_text old;
  read_record_file(slot.lock.get(), old);
  format_record(session.record, text);
  return write_record_file(slot.lock.get(), text, old, scope);
}

/// A new lock file for a name whose file is gone; or the one that somebody put there, if it can
/// be locked. 0, or a negated errno. The slot gets it, the keeper is told, the old one is closed.
inline int put_back_file(lock_session& session, lock_slot& slot, lock_change_scope& scope) {
  namespace sys = platform::sys;
  const lock_file_name file(session.name.view(), lock_suffix);
  const lock_file_name fresh(session.name.view(), new_suffix);
  const bool host = session.options.scope == lock_scope::host;
  lock_directory directory = open_lock_directory(session.options, directory_use::take);
  if (directory.fault) return directory.fault.code.category() == std::system_category() ? -directory.fault.code.value() : -EPERM;
  if ((directory.path / file.text) != session.path) return -EXDEV;  // the default one is another by now

  file_descriptor made;
  struct stat facts = {};
  struct stat there = {};
  for (int tries = 0; tries < 50; ++tries) {
    const int exists = sys::fstatat(directory.descriptor.get(), file.text, &there, AT_SYMLINK_NOFOLLOW);
    const bool link_fresh = exists == -ENOENT;
    if (link_fresh) sys::unlinkat(directory.descriptor.get(), fresh.text);
    bool writable = true;
    const lock_attempt of{session.name, session.options.scope, session.path.string(), directory.descriptor.get(), nullptr};
    made.reset(link_fresh ? sys::openat(directory.descriptor.get(), fresh.text,
                                        O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, host ? 0644 : 0600)
                          : open_lock_file(of, file.text, writable));
    if (!made) return -EIO;
    if (made.get() <= 2) made.reset(sys::fcntl(made.get(), F_DUPFD_CLOEXEC, 3));
    if (sys::fstat(made.get(), &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_uid != sys::geteuid()) return -EPERM;
    const int locked = platform::flock_now(made.get(), LOCK_EX);
    if (locked != 0) {  // a contender has it until it finds the socket taken
      if (locked != -EWOULDBLOCK) return locked;
      sys::sleep_for(1'000'000);
      continue;
    }
    platform::mark_held(made.get(), true);
    record_text text;
    record_text old;
    read_record_file(made.get(), old);
    format_record(session.record, text);
    const int wrote = write_record_file(made.get(), text, old, scope);
    if (wrote != 0) {
      if (link_fresh) sys::unlinkat(directory.descriptor.get(), fresh.text);
      return wrote;
    }
    if (link_fresh) {
      const int linked = ::linkat(directory.descriptor.get(), fresh.text, directory.descriptor.get(), file.text, 0) == 0 ? 0 : -errno;
      sys::unlinkat(directory.descriptor.get(), fresh.text);
      if (linked == -EEXIST) continue;
      if (linked != 0) return linked;
    }
    if (sys::fstatat(AT_FDCWD, session.path.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0 || there.st_ino != facts.st_ino ||
        there.st_dev != facts.st_dev)
      continue;
    const int shared = sys::fcntl(directory.descriptor.get(), F_DUPFD_CLOEXEC, 3);
    if (shared < 0) return shared;
    platform::flock_now(shared, LOCK_SH);
    struct stat where = {};
    sys::fstat(shared, &where);
    // The old file stays held until the keeper has the new one.
    slot_file before;
    before.device = slot.lock.device.load();
    before.inode = slot.lock.inode.load();
    before.descriptor = slot.lock.descriptor.load();
    slot.directory.close();
    slot.lock.set(made.release(), facts);
    slot.directory.set(shared, where);
    const lock_keeper keeper = keeper_of(slot);
    const bool kept = keeper.group_slot < 0 || keeper.replace == nullptr || keeper.replace(keeper.group_slot, slot_index(slot));
    before.close();
    return kept ? 0 : -EPIPE;
  }
  return -EWOULDBLOCK;
}

inline void verify_lock(lock_session& session, std::error_code& ec) {
  lock_slot* slot = session.held_without_a_call();
  if (slot == nullptr) {
    ec = errc::lock_lost;
    return;
  }
  struct stat facts = {};
  const lock_keeper keeper = keeper_of(*slot);
  // A lock that a warden keeps too can't be lost by closing a descriptor here.
  const bool open = keeper.group_slot >= 0 || slot->lock.intact();
  const bool in_place = platform::sys::fstatat(AT_FDCWD, session.path.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
                        slot->lock.is(facts);
  if (!open) {
    ec = errc::lock_lost;
    return;
  }
  if (keeper.group_slot >= 0 && keeper.healthy != nullptr && !keeper.healthy(keeper.group_slot)) {
    ec = errc::warden_lost;
    return;
  }
  if (in_place) return;
  lock_change_scope scope;
  if (!begin_change(*slot)) {
    ec = errc::lock_lost;
    return;
  }
  int result = 0;
  {
    const struct change_end {  // also when memory runs out
      lock_slot& slot;
      ~change_end() { end_change(slot); }
    } end{*slot};
    result = put_back_file(session, *slot, scope);
  }
  if (result == -EPIPE)
    ec = errc::warden_lost;
  else if (result != 0)
    ec = errc::lock_lost;
}

}  // namespace instance_guard::detail
