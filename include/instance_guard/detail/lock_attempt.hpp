// layer 3: one attempt to take a name, never waiting: file lock, then socket lock, then record.
//
// Nothing is written before both locks are held, and what this attempt made is removed when it
// fails. The order is that of a model which finds two holders when a step is missing.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <string>

#include "../file_descriptor.hpp"
#include "lock_file.hpp"
#include "lock_fork.hpp"
#include "lock_name.hpp"
#include "lock_record.hpp"
#include "lock_slot.hpp"

namespace instance_guard::detail {

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
        std::strcmp(slot.file_name, file) == 0 && (platform::has_socket_lock || slot.directory.is(directory)))
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

/// Takes back what an attempt has done so far, unless it comes to its end: also when memory runs
/// out. Declare it after the file that it unlinks, which must still be held then.
class attempt_undo {
 public:
  attempt_undo(int directory, const char* file) noexcept : directory_(directory), file_(file) {}
  ~attempt_undo() {
    if (slot != nullptr) end_change(*slot, lock_slot::free);
    if (unlink) platform::sys::unlinkat(directory_, file_);
  }
  attempt_undo(const attempt_undo&) = delete;
  attempt_undo& operator=(const attempt_undo&) = delete;
  void keep() noexcept {
    slot = nullptr;
    unlink = false;
  }

  lock_slot* slot = nullptr;  ///< reserved
  bool unlink = false;        ///< the file was missing, or empty, and is this attempt's alone

 private:
  int directory_;
  const char* file_;
};

/// Writes the record over what the last holder left. 0, or a negated errno.
inline int write_first_record(lock_attempt& of, const locked_file& file, bool was_empty, lock_change_scope& scope) {
  of.record->acquired_at = std::chrono::system_clock::now();
  of.record->unswept = {};
  // Of another boot or namespace nothing can be found.
  if (const auto dead = parse_record(of.found.view()); dead && dead->process.boot == of.record->process.boot &&
                                                       dead->process.pid_namespace == of.record->process.pid_namespace)
    of.record->unswept = unswept_after(*dead, of.found.user);
  record_text text;
  format_record(*of.record, text);
  const mode_t mode = of.scope == lock_scope::host ? 0644 : 0600;
  if ((file.facts.st_mode & 07777) != mode && file.facts.st_uid == platform::sys::geteuid())
    ::fchmod(file.held.get(), mode);  // the umask was at work
  return write_record_file(file.held.get(), text, was_empty ? record_text{} : of.found, scope);
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
  const lock_file_name name(of.name.view(), lock_suffix);
  const lock_file_name second(of.name.view(), new_suffix);
  const lock_file_name refused(of.name.view(), refused_suffix);
  struct stat directory = {};
  struct stat facts = {};
  if (const int seen = sys::fstat(of.directory, &directory); seen != 0) {
    of.fault = system_fault(seen, of.path, "cannot be opened");
    return attempt_result::fault;
  }
  if (lock_slot* own = slot_holding(of.scope, directory, name.text); own != nullptr && own->lock.intact()) {
    read_record_file(own->lock.get(), of.found);
    return attempt_result::busy_here;
  }

  locked_file file;
  if (const attempt_result locked = lock_the_file(of, name.text, file); locked != attempt_result::taken) return locked;
  attempt_undo undo(of.directory, name.text);
  read_record_file(file.held.get(), of.found);
  const bool was_empty = of.found.size == 0;
  undo.unlink = was_empty && file.writable;
  const bool leftover = undo.unlink && read_leftover(of, second.text);
  if (const int marked = platform::mark_held(file.held.get(), file.writable); marked == -ENOLCK) {
    of.fault = system_fault(marked, of.path, "cannot be locked");
    return attempt_result::fault;
  }

  const int bound = take_socket_lock(of, of.without_socket);
  if (bound == -EADDRINUSE) return attempt_result::busy_socket;
  if (bound < -1) {
    of.fault = system_fault(bound, of.path, "cannot have its socket");
    return attempt_result::fault;
  }
  file_descriptor socket(bound);
  file_descriptor shared(sys::fcntl(of.directory, F_DUPFD_CLOEXEC, 3));
  if (!shared) {
    of.fault = system_fault(-EMFILE, of.path, "cannot be locked");
    return attempt_result::fault;
  }
  platform::flock_now(shared.get(), LOCK_SH);  // tmp cleaners leave a locked directory alone
  undo.slot = reserve_slot();
  if (undo.slot == nullptr) {
    of.fault = make_fault(std::make_error_code(std::errc::no_lock_available),
                          joined({"this process already holds ", std::to_string(max_locks), " names"}), "release some");
    return attempt_result::fault;
  }
  if (file.writable) {
    if (const int wrote = write_first_record(of, file, was_empty, scope); wrote != 0) {
      of.fault = system_fault(wrote, of.path, "cannot be written");
      return attempt_result::fault;
    }
  }

  // Taken. Nothing below can fail.
  sys::unlinkat(of.directory, refused.text);  // those who were refused by the last holder
  if (file.put_back || leftover) sys::unlinkat(of.directory, second.text);
  lock_slot& slot = *undo.slot;
  undo.keep();
  std::memcpy(slot.file_name, name.text, sizeof name.text);
  std::memcpy(slot.refused_name, refused.text, sizeof refused.text);
  slot.scope.store(static_cast<int>(of.scope), std::memory_order_relaxed);
  slot.lock.set(file.held.release(), file.facts);
  slot.directory.set(shared.release(), directory);
  if (socket && sys::fstat(socket.get(), &facts) == 0) slot.socket.set(socket.release(), facts);
  slot.has_duty.store(of.record->unswept[0].process.pid > 0, std::memory_order_relaxed);
  of.slot = slot_index(slot);
  end_change(slot, lock_slot::held);
  return attempt_result::taken;
}

}  // namespace instance_guard::detail
