// layer 3: one attempt to take a name, never waiting: file lock, then socket lock, then record.
//
//   open -> checks -> flock -> is the path still this file? -> mark -> socket -> record
//
// Nothing is written before both locks are held, and what this attempt made is removed when it
// fails. The order is that of a model which finds two holders when a step is missing.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <chrono>
#include <string>

#include "../file_descriptor.hpp"
#include "lock_directory.hpp"
#include "lock_fork.hpp"
#include "lock_name.hpp"
#include "lock_record.hpp"
#include "lock_slot.hpp"

namespace instance_guard::detail {

enum class attempt_result {
  taken,
  busy_here,    ///< this process has it
  busy_file,    ///< somebody has the file lock
  busy_socket,  ///< the file was free, the socket lock is not: a holder that uses another file
  try_again,    ///< the directory is another one by now: open it again
  fault
};

/// What an attempt needs and what comes of it.
struct lock_attempt {
  const lock_name& name;
  lock_scope scope;
  std::string path;                 ///< of the lock file, absolute
  int directory = -1;
  lock_record* record = nullptr;    ///< written when taken; the time is set here

  int slot = -1;                    ///< taken: of lock_slots
  record_text found = {};           ///< what the file held before; also of a busy one
  bool without_socket = false;      ///< a stranger has bound the socket's name
  lock_fault fault = {};
};

inline std::string file_kind(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISLNK(mode)) return "a symbolic link";
  return "a device";
}

/// Says what lies in the lock file's place. The path may have changed since; then only the errno.
inline lock_fault wrong_file(const lock_attempt& of, int negated_errno) {
  struct stat facts = {};
  if (platform::sys::fstatat(AT_FDCWD, of.path.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0) {
    if (!S_ISREG(facts.st_mode))
      return make_fault(std::make_error_code(std::errc::invalid_argument),
                        of.path + " is " + file_kind(facts.st_mode) + ", not a lock file",
                        "see who made it, then remove it");
    if (facts.st_uid != ::geteuid() && of.scope == lock_scope::user)
      return make_fault(std::make_error_code(std::errc::operation_not_permitted),
                        of.path + " belongs to user " + user_name(facts.st_uid),
                        "rm " + of.path + "   as that user or root");
  }
  return system_fault(negated_errno, of.path, "cannot be opened");
}

/// Opens the lock file, made where missing. A negated errno when it can't be. `writable` is false
/// for another user's file in scope host: it can be locked, not written.
inline int open_lock_file(const lock_attempt& of, const char* file, bool& writable) noexcept {
  constexpr int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  const mode_t mode = of.scope == lock_scope::host ? 0644 : 0600;
  writable = true;
  int opened = -EINTR;
  for (int tries = 0; opened == -EINTR && tries < 100; ++tries)
    opened = platform::sys::openat(of.directory, file, O_RDWR | O_CREAT | flags, mode);
  // In a shared directory fs.protected_regular refuses O_CREAT on a file of somebody else's.
  if (opened == -EACCES) {
    opened = platform::sys::openat(of.directory, file, O_RDWR | flags);
    if (opened == -ENOENT) opened = -EACCES;  // it was the directory that refused
  }
  if (opened == -EACCES && of.scope == lock_scope::host) {
    writable = false;
    opened = platform::sys::openat(of.directory, file, O_RDONLY | flags);
  }
  if (opened < 0 || opened > 2) return opened;
  const int moved = platform::sys::fcntl(opened, F_DUPFD_CLOEXEC, 3);  // 0 to 2: standard streams
  platform::sys::close(opened);
  return moved;
}

/// Reads at most a record and one byte.
inline void read_record_file(int descriptor, record_text& out) noexcept {
  out.size = 0;
  struct stat facts = {};
  if (platform::sys::fstat(descriptor, &facts) == 0) out.user = facts.st_uid;
  while (out.size < sizeof out.bytes) {
    const long got = platform::sys::pread(descriptor, out.bytes + out.size, sizeof out.bytes - out.size,
                                          static_cast<off_t>(out.size));
    if (got == -EINTR) continue;
    if (got <= 0) return;
    out.size += static_cast<std::size_t>(got);
  }
}

/// One pwrite, then the length. On failure the old text is put back. 0, or a negated errno.
inline int write_record_file(int descriptor, const record_text& text, const record_text& old,
                             lock_change_scope& scope) noexcept {
  std::size_t written = 0;
  int result = 0;
  while (written < text.size && result == 0) {
    const long got = platform::sys::pwrite(descriptor, text.bytes + written, text.size - written,
                                           static_cast<off_t>(written));
    if (got == -EINTR) continue;
    if (got == -EFBIG) scope.file_too_large();
    if (got > 0)
      written += static_cast<std::size_t>(got);
    else
      result = got == 0 ? -ENOSPC : static_cast<int>(got);
  }
  if (result == 0) result = platform::sys::ftruncate(descriptor, static_cast<off_t>(text.size));
  if (result == 0) return 0;
  if (old.size <= max_record) {
    if (old.size > 0) platform::sys::pwrite(descriptor, old.bytes, old.size, 0);
    platform::sys::ftruncate(descriptor, static_cast<off_t>(old.size));
  }
  return result;
}

/// Reads the record of a holder that was killed while it put its file back. False: there is none.
inline bool read_leftover(lock_attempt& of, const char* file) noexcept {
  const file_descriptor left(
      platform::sys::openat(of.directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat facts = {};
  if (!left || platform::sys::fstat(left.get(), &facts) != 0 || !S_ISREG(facts.st_mode) ||
      facts.st_uid != platform::sys::geteuid())
    return false;
  read_record_file(left.get(), of.found);
  return true;
}

inline lock_slot* reserve_slot() noexcept {
  for (lock_slot& slot : lock_slots) {
    if (!begin_change(slot, lock_slot::free)) continue;
    slot.owner.store(platform::sys::getpid(), std::memory_order_relaxed);
    return &slot;
  }
  return nullptr;
}

/// The slot in which this process has that name already, or null. With the socket lock one name is
/// one lock, whatever the directory.
inline lock_slot* slot_holding(lock_scope scope, const struct stat& directory, const char* file) noexcept {
  for (lock_slot& slot : lock_slots)
    if (slot.state.load(std::memory_order_acquire) == lock_slot::held &&
        slot.scope.load(std::memory_order_relaxed) == static_cast<int>(scope) &&
        std::strcmp(slot.file_name, file) == 0 &&
        (platform::has_socket_lock || slot.directory.is(directory)))
      return &slot;
  return nullptr;
}

/// Takes the socket lock: a descriptor, -1 to go on without, or -EADDRINUSE: somebody has it.
/// A stranger who squats on the name can't lock anybody out in scope user.
inline int take_socket_lock(const lock_attempt& of, bool& foreign) noexcept {
  foreign = false;
  if (!platform::has_socket_lock) return -1;
  const uid_t self = platform::sys::geteuid();
  const socket_name address(of.scope, self, of.name.view());
  for (int tries = 0; tries < 5; ++tries) {
    const int made = platform::take_socket_name(address.text, address.size);
    if (made >= 0) return made;
    if (made == -EMFILE || made == -ENFILE || made == -ENOMEM || made == -ENOBUFS) return made;
    if (made != -EADDRINUSE) return -1;  // no such sockets here (seccomp, a kernel without)
    uid_t owner = 0;
    const int known = platform::socket_name_owner(address.text, address.size, owner);
    if (known == 2) return -EADDRINUSE;
    if (known == 1) {
      foreign = of.scope == lock_scope::user && owner != self;
      return foreign ? -1 : -EADDRINUSE;
    }
    platform::sys::sleep_for(1'000'000);  // it has just gone, or is bound and not listening yet
  }
  // Bound for 5 ms, listened to by nobody, and the system won't say by whom: no lock of ours is so.
  foreign = of.scope == lock_scope::user;
  return foreign ? -1 : -EADDRINUSE;
}

/// The attempt. Holds the gate; signals are blocked meanwhile.
inline attempt_result attempt_lock(lock_attempt& of, lock_change_scope& scope) {
  namespace sys = platform::sys;
  of.fault = {};
  of.found.size = 0;
  if (const int prepared = prepare_process(); prepared != 0) {
    of.fault = system_fault(prepared, of.path, "cannot prepare for fork");
    return attempt_result::fault;
  }
  const lock_file_name file(of.name.view(), lock_suffix);
  struct stat directory = {};
  struct stat facts = {};
  struct stat there = {};
  sys::fstat(of.directory, &directory);
  if (lock_slot* own = slot_holding(of.scope, directory, file.text); own != nullptr && own->lock.intact()) {
    read_record_file(own->lock.get(), of.found);
    return attempt_result::busy_here;
  }

  // The file lock. The path may be another file by the time it is locked: then again, bounded.
  file_descriptor held;
  bool writable = true;
  bool put_back = false;  // has a second name, left by one who was killed putting it back
  for (int tries = 0;; ++tries) {
    if (tries == 32) {
      of.fault = make_fault(std::make_error_code(std::errc::resource_unavailable_try_again),
                            of.path + " is replaced all the time", "find out what replaces it");
      return attempt_result::fault;
    }
    const int opened = open_lock_file(of, file.text, writable);
    if (opened == -ENOENT) return attempt_result::try_again;  // the directory was removed
    if (opened < 0) {
      of.fault = wrong_file(of, opened);
      return attempt_result::fault;
    }
    held.reset(opened);
    if (const int seen = sys::fstat(opened, &facts); seen != 0 || !S_ISREG(facts.st_mode)) {
      of.fault = wrong_file(of, seen != 0 ? seen : -EINVAL);
      return attempt_result::fault;
    }
    if (facts.st_nlink == 0) continue;  // unlinked since
    if (of.scope == lock_scope::user && facts.st_uid != sys::geteuid()) {
      of.fault = wrong_file(of, -EPERM);
      return attempt_result::fault;
    }
    if (facts.st_nlink > 1) {
      put_back = facts.st_nlink == 2 && sys::fstatat(of.directory, lock_file_name(of.name.view(), new_suffix).text, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                 there.st_ino == facts.st_ino && there.st_dev == facts.st_dev;
      if (!put_back) {
        of.fault = make_fault(std::make_error_code(std::errc::too_many_links),
                              of.path + " has a second name (a hard link)", "see who made it, then rm " + of.path);
        return attempt_result::fault;
      }
    }
    const int locked = platform::flock_now(opened, LOCK_EX);
    if (locked == -EWOULDBLOCK) {
      read_record_file(opened, of.found);
      return attempt_result::busy_file;
    }
    if (locked != 0) {
      of.fault = system_fault(locked, of.path, "cannot be locked");
      return attempt_result::fault;
    }
    if (sys::fstatat(AT_FDCWD, of.path.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) {
      if (there.st_ino == facts.st_ino && there.st_dev == facts.st_dev) break;
    } else if (sys::fstat(opened, &there) == 0 && there.st_nlink > 0) {
      return attempt_result::try_again;  // the file is there, but not by that path
    }
  }
  read_record_file(held.get(), of.found);
  const bool empty = of.found.size == 0;
  const lock_file_name second(of.name.view(), new_suffix);
  const bool leftover = empty && writable && read_leftover(of, second.text);
  // Ours alone and empty: what an attempt that fails leaves as it was, missing.
  const auto undo = [&]() noexcept {
    if (empty && writable) sys::unlinkat(of.directory, file.text);
  };

  const int marked = platform::mark_held(held.get(), writable);
  if (marked == -ENOLCK) {
    undo();
    of.fault = system_fault(marked, of.path, "cannot be locked");
    return attempt_result::fault;
  }
  file_descriptor socket;
  const int bound = take_socket_lock(of, of.without_socket);
  if (bound == -EADDRINUSE) {
    undo();
    return attempt_result::busy_socket;
  }
  if (bound < -1) {
    undo();
    of.fault = system_fault(bound, "socket of the lock", "cannot be made");
    return attempt_result::fault;
  }
  socket.reset(bound);

  const int shared = sys::fcntl(of.directory, F_DUPFD_CLOEXEC, 3);
  file_descriptor of_directory(shared);
  lock_slot* slot = shared < 0 ? nullptr : reserve_slot();
  if (slot == nullptr) {
    undo();
    of.fault = shared < 0 ? system_fault(shared, of.path, "cannot be locked")
                          : make_fault(std::make_error_code(std::errc::no_lock_available),
                                       "this process already holds " + std::to_string(max_locks) + " names",
                                       "release some");
    return attempt_result::fault;
  }
  platform::flock_now(shared, LOCK_SH);  // tmp cleaners leave a locked directory alone

  if (writable) {
    of.record->acquired_at = std::chrono::system_clock::now();
    // Of another boot or namespace nothing can be found.
    if (const auto dead = parse_record(of.found.view());
        dead && dead->process.boot == of.record->process.boot &&
        dead->process.pid_namespace == of.record->process.pid_namespace)
      of.record->unswept = unswept_after(*dead, of.found.user);
    record_text text;
    format_record(*of.record, text);
    const mode_t mode = of.scope == lock_scope::host ? 0644 : 0600;
    if ((facts.st_mode & 07777) != mode && facts.st_uid == sys::geteuid()) ::fchmod(held.get(), mode);  // umask
    if (const int wrote = write_record_file(held.get(), text, empty ? record_text{} : of.found, scope); wrote != 0) {
      undo();
      end_change(*slot, lock_slot::free);
      of.fault = system_fault(wrote, of.path, "cannot be written");
      return attempt_result::fault;
    }
  }
  const lock_file_name refused(of.name.view(), refused_suffix);
  sys::unlinkat(of.directory, refused.text);  // those who were refused by the last holder
  if (put_back || leftover) sys::unlinkat(of.directory, second.text);

  std::memcpy(slot->file_name, file.text, sizeof file.text);
  std::memcpy(slot->refused_name, refused.text, sizeof refused.text);
  slot->scope.store(static_cast<int>(of.scope), std::memory_order_relaxed);
  slot->lock.set(held.release(), facts);
  slot->directory.set(of_directory.release(), directory);
  if (socket && sys::fstat(socket.get(), &there) == 0) slot->socket.set(socket.release(), there);
  of.slot = slot_index(*slot);
  end_change(*slot, lock_slot::held);
  return attempt_result::taken;
}

}  // namespace instance_guard::detail
