// layer 3: the lock file: opened, checked, locked; its record read and written.
//
//   open -> regular, own, one name -> flock -> is the path still this file?
//
// Existence means nothing. Never O_TRUNC (the holder's record), never a link (its target), never
// blocking (a FIFO).
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "../file_descriptor.hpp"
#include "lock_fault.hpp"
#include "lock_fork.hpp"
#include "lock_name.hpp"
#include "lock_record.hpp"

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
  std::string path;  ///< of the lock file, absolute
  int directory = -1;
  lock_record* record = nullptr;  ///< written when taken; the time is set here

  int slot = -1;                ///< taken: of lock_slots
  record_text found = {};       ///< what the file held before; also of a busy one
  bool without_socket = false;  ///< a stranger has bound the socket's name
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
                        joined({of.path, " is ", file_kind(facts.st_mode), ", not a lock file"}),
                        "see who made it, then remove it");
    if (facts.st_uid != ::geteuid() && of.scope == lock_scope::user)
      return make_fault(std::make_error_code(std::errc::operation_not_permitted),
                        joined({of.path, " belongs to user ", user_name(facts.st_uid)}),
                        joined({"rm ", of.path, "   as that user or root"}));
  }
  return system_fault(negated_errno, of.path, "cannot be opened");
}

inline lock_fault second_name_fault(const lock_attempt& of) {
  return make_fault(std::make_error_code(std::errc::too_many_links),
                    joined({of.path, " has a second name (a hard link)"}),
                    joined({"see who made it, then rm ", of.path}));
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
    const long got =
        platform::sys::pwrite(descriptor, text.bytes + written, text.size - written, static_cast<off_t>(written));
    if (got == -EINTR) continue;
    if (got == -EFBIG) scope.file_too_large();
    if (got > 0) written += static_cast<std::size_t>(got);
    else result = got == 0 ? -ENOSPC : static_cast<int>(got);
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

/// A lock file that this attempt has locked.
struct locked_file {
  file_descriptor held = {};
  struct stat facts = {};
  bool writable = true;   ///< false: another user's, in scope host
  bool put_back = false;  ///< it has a second name, left by one who was killed putting it back
};

/// Whether a file with two names got the second one while it was put back; see lock_verify.hpp.
inline bool was_put_back(const lock_attempt& of, const struct stat& facts) noexcept {
  struct stat there = {};
  return facts.st_nlink == 2 &&
         platform::sys::fstatat(of.directory, lock_file_name(of.name.view(), new_suffix).text, &there,
                                AT_SYMLINK_NOFOLLOW) == 0 &&
         there.st_ino == facts.st_ino && there.st_dev == facts.st_dev;
}

/// A file of one's own that nobody can read or write: one that is being made, under a strange
/// umask.
inline bool is_being_made(const lock_attempt& of, const char* file) noexcept {
  struct stat facts = {};
  return platform::sys::fstatat(of.directory, file, &facts, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(facts.st_mode) &&
         facts.st_size == 0 && facts.st_uid == platform::sys::geteuid() && (facts.st_mode & 0600) != 0600;
}

/// Opens, checks and locks the file: taken, busy_file, try_again or fault. The path may be another
/// file by the time it is locked: then again, bounded.
inline attempt_result lock_the_file(lock_attempt& of, const char* file, locked_file& out) {
  namespace sys = platform::sys;
  struct stat there = {};
  for (int tries = 0; tries < 32; ++tries) {
    const int opened = open_lock_file(of, file, out.writable);
    if (opened == -ENOENT) return attempt_result::try_again;  // the directory was removed
    if (opened == -EACCES && is_being_made(of, file) && tries < 31) {
      sys::sleep_for(1'000'000);
      continue;
    }
    if (opened < 0) {
      of.fault = wrong_file(of, opened);
      return attempt_result::fault;
    }
    out.held.reset(opened);
    if (const int seen = sys::fstat(opened, &out.facts); seen != 0 || !S_ISREG(out.facts.st_mode)) {
      of.fault = wrong_file(of, seen != 0 ? seen : -EINVAL);
      return attempt_result::fault;
    }
    if (out.facts.st_nlink == 0) continue;  // unlinked since
    if (of.scope == lock_scope::user && out.facts.st_uid != sys::geteuid()) {
      of.fault = wrong_file(of, -EPERM);
      return attempt_result::fault;
    }
    out.put_back = out.facts.st_nlink > 1 && was_put_back(of, out.facts);
    if (out.facts.st_nlink > 1 && !out.put_back) {
      of.fault = second_name_fault(of);
      return attempt_result::fault;
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
    // By the whole path, not by the directory's descriptor: the directory may be another one too.
    if (sys::fstatat(AT_FDCWD, of.path.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) {
      if (there.st_ino == out.facts.st_ino && there.st_dev == out.facts.st_dev) return attempt_result::taken;
    } else if (sys::fstat(opened, &there) == 0 && there.st_nlink > 0) {
      return attempt_result::try_again;  // the file is there, but not by that path
    }
  }
  of.fault = make_fault(std::make_error_code(std::errc::resource_unavailable_try_again),
                        joined({of.path, " is replaced all the time"}), "find out what replaces it");
  return attempt_result::fault;
}

}  // namespace instance_guard::detail
