// layer 3: still the one holder? And what is done about a lock file that has vanished.
//
// Two system calls when all is well: stat of the path against the remembered file, and one
// question to whoever keeps the lock. A vanished file is put back under a second name, complete and
// locked, and only then linked to its own: a lock file never appears unlocked or half written.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "lock_directory.hpp"
#include "lock_file.hpp"
#include "lock_fork.hpp"
#include "lock_session.hpp"

namespace instance_guard::detail {

/// Writes the session's record to the lock file again. 0, or a negated errno. Holds the gate.
inline int rewrite_record(lock_session& session, const lock_slot& slot, lock_change_scope& scope) noexcept {
  if (!slot.lock.intact()) return -EBADF;
  record_text text;
  record_text old;
  read_record_file(slot.lock.get(), old);
  format_record(session.record, text, &session.further_wardens);
  return write_record_file(slot.lock.get(), text, old, scope);
}

/// A lock file for a name whose file is gone: made under its second name, or the one that
/// somebody put in its place. Nothing is known of it yet.
inline file_descriptor open_in_place(const lock_attempt& of, const char* file, const char* fresh, bool make) noexcept {
  if (!make) {
    bool writable = true;
    return file_descriptor(open_lock_file(of, file, writable));
  }
  const mode_t mode = of.scope == lock_scope::host ? 0644 : 0600;
  platform::sys::unlinkat(of.directory, fresh);
  file_descriptor made(
      platform::sys::openat(of.directory, fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (made) ::fchmod(made.get(), mode);  // whatever the umask
  if (made && made.get() <= 2) made.reset(platform::sys::fcntl(made.get(), F_DUPFD_CLOEXEC, 3));
  return made;
}

/// Locks the file, writes the record, and gives it its name: 0, -EAGAIN to begin again, or another
/// negated errno.
inline int name_new_file(const lock_session& session, const lock_attempt& of, int made, const char* file,
                         const char* fresh, bool link, lock_change_scope& scope) noexcept {
  namespace sys = platform::sys;
  // A contender has it until it finds the socket taken.
  if (const int locked = platform::flock_now(made, LOCK_EX); locked != 0)
    return locked == -EWOULDBLOCK ? -EAGAIN : locked;
  platform::mark_held(made, true);
  record_text text;
  record_text old;
  read_record_file(made, old);
  format_record(session.record, text, &session.further_wardens);
  int result = write_record_file(made, text, old, scope);
  if (!link) return result;
  if (result == 0 && ::linkat(of.directory, fresh, of.directory, file, 0) != 0)
    result = errno == EEXIST ? -EAGAIN : -errno;
  sys::unlinkat(of.directory, fresh);
  return result;
}

/// The slot's lock file is another one from now on. The old one stays held until the keeper, if
/// there is one, has the new one; -EPIPE: it has not.
inline int take_new_file(lock_slot& slot, file_descriptor made, const struct stat& facts, int directory) noexcept {
  const int shared = platform::sys::fcntl(directory, F_DUPFD_CLOEXEC, 3);
  if (shared < 0) return shared;
  platform::flock_now(shared, LOCK_SH);
  struct stat where = {};
  platform::sys::fstat(shared, &where);
  slot_file before;
  before.device = slot.lock.device.load();
  before.inode = slot.lock.inode.load();
  before.descriptor = slot.lock.descriptor.load();
  slot.directory.close();
  slot.directory.set(shared, where);
  slot.lock.set(made.release(), facts);
  const lock_keeper keeper = keeper_of(slot);
  const bool kept =
      keeper.group_slot < 0 || keeper.replace == nullptr || keeper.replace(keeper.group_slot, slot_index(slot));
  before.close();
  return kept ? 0 : -EPIPE;
}

/// Puts the lock file back. 0, or a negated errno; -EPIPE: the keeper is gone.
inline int put_back_file(lock_session& session, lock_slot& slot, lock_change_scope& scope) {
  namespace sys = platform::sys;
  const lock_file_name file(session.name.view(), lock_suffix);
  const lock_file_name fresh(session.name.view(), new_suffix);
  const lock_directory directory = open_lock_directory(session.options, directory_use::take);
  if (directory.fault) return -EPERM;
  if (directory.path / file.text != session.path) return -EXDEV;  // the default is another by now
  const lock_attempt of{session.name, session.options.scope, session.path.string(), directory.descriptor.get(),
                        nullptr};
  for (int tries = 0; tries < 50; ++tries) {
    struct stat facts = {};
    struct stat there = {};
    const int seen = sys::fstatat(of.directory, file.text, &there, AT_SYMLINK_NOFOLLOW);
    if (seen == 0 && slot.lock.is(there)) return 0;  // it was there all the time
    const bool make = seen == -ENOENT;
    file_descriptor made = open_in_place(of, file.text, fresh.text, make);
    if (!made) return -EIO;
    if (sys::fstat(made.get(), &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_nlink > 1 ||
        facts.st_uid != sys::geteuid())
      return -EPERM;
    const int result = name_new_file(session, of, made.get(), file.text, fresh.text, make, scope);
    if (result != 0 && result != -EAGAIN) return result;
    if (result == 0 && sys::fstatat(AT_FDCWD, of.path.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        there.st_ino == facts.st_ino && there.st_dev == facts.st_dev)
      return take_new_file(slot, std::move(made), facts, of.directory);
    if (result == -EAGAIN) sys::sleep_for(1'000'000);
  }
  return -EWOULDBLOCK;
}

/// The lock can't have been lost by closing its descriptor here. One system call, or none: what a
/// warden keeps as well can't be lost so.
inline bool is_still_open(const lock_slot& slot, const lock_keeper& keeper) noexcept {
  return keeper.group_slot >= 0 || slot.lock.intact();
}

inline void verify_lock(lock_session& session, std::error_code& ec) {
  lock_slot* slot = session.held_without_a_call();
  if (slot == nullptr) {
    ec = errc::lock_lost;
    return;
  }
  const lock_keeper keeper = keeper_of(*slot);
  struct stat facts = {};
  const bool open = is_still_open(*slot, keeper);
  const bool in_place =
      platform::sys::fstatat(AT_FDCWD, session.path.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 && slot->lock.is(facts);
  if (keeper.group_slot >= 0 && keeper.healthy != nullptr && !keeper.healthy(keeper.group_slot)) {
    // Without a warden the lock hangs on this process's own descriptor; who closed that closed the warden's socket too.
    ec = slot->lock.intact() ? errc::warden_lost : errc::lock_lost;
    return;
  }
  if (open && in_place) return;
  // Not well, or another thread is putting the file back: look again with the gate held.
  lock_change_scope scope;
  if (!is_still_open(*slot, keeper) || !begin_change(*slot)) {
    ec = errc::lock_lost;
    return;
  }
  const struct change_end {  // also when memory runs out
    lock_slot& slot;
    ~change_end() { end_change(slot); }
  } end{*slot};
  const int result = put_back_file(session, *slot, scope);
  if (result == -EPIPE) ec = errc::warden_lost;
  else if (result != 0) ec = errc::lock_lost;
}

}  // namespace instance_guard::detail
