// layer 3: every lock of this process, in fixed slots; what ends them on the way out.
//
// Async-signal-safe throughout: atomics of fixed size, raw system calls, no allocation, no locks.
// A pid_lockfile is a handle to a slot, so that its destructor, a signal handler, exit(3) in
// another thread and a moved-from guard all see the same, and whatever ends it first ends it once.
//
// A slot is free, busy (one thread is changing it, with signals blocked) or held. Only its owner,
// told by pid and by a page that fork wipes, may unlink; a copy in a forked child only closes.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <sys/stat.h>
#include <sys/types.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// Set by the group that keeps a lock until its last process is dead.
/// Everything noexcept and async-signal-safe.
struct lock_keeper {
  int group_slot = -1;  ///< -1: nobody keeps it
  /// "Release it, unlinked, once the group is empty." False: the warden is gone.
  bool (*drop)(int group_slot, int lock_slot) noexcept = nullptr;
  /// The slot has a new lock file; true once the warden has it as well.
  bool (*replace)(int group_slot, int lock_slot) noexcept = nullptr;
  /// The warden lives and is not stopped. Exactly one system call.
  bool (*healthy)(int group_slot) noexcept = nullptr;
};

/// A descriptor with the identity of what it was opened for: a program that closes all its
/// descriptors may by now have something else under the number.
struct slot_file {
  std::atomic<int> descriptor{-1};
  std::atomic<std::uint64_t> device{0};
  std::atomic<std::uint64_t> inode{0};

  int get() const noexcept { return descriptor.load(std::memory_order_relaxed); }
  bool is(const struct stat& facts) const noexcept {
    return device.load(std::memory_order_relaxed) == static_cast<std::uint64_t>(facts.st_dev) &&
           inode.load(std::memory_order_relaxed) == static_cast<std::uint64_t>(facts.st_ino);
  }
  /// The descriptor still is what it was opened for.
  bool intact() const noexcept {
    struct stat facts;
    return get() >= 0 && platform::sys::fstat(get(), &facts) == 0 && is(facts);
  }
  void set(int number, const struct stat& facts) noexcept {
    device.store(static_cast<std::uint64_t>(facts.st_dev), std::memory_order_relaxed);
    inode.store(static_cast<std::uint64_t>(facts.st_ino), std::memory_order_relaxed);
    descriptor.store(number, std::memory_order_relaxed);
  }
  void close() noexcept {
    if (intact()) platform::sys::close(get());
    descriptor.store(-1, std::memory_order_relaxed);
  }
};

struct lock_slot {
  enum : int { free, busy, held };

  std::atomic<int> state{free};
  std::atomic<unsigned> generation{0};  ///< grows with each end, so that old handles don't match
  std::atomic<pid_t> owner{0};
  slot_file lock;                       ///< flock and mark on it; its own file unless read_only
  slot_file socket;                     ///< the listening socket, -1: held without
  slot_file directory;                  ///< with a shared flock
  std::atomic<int> scope{0};            ///< of the name, lock_scope
  char file_name[80] = {};              ///< NAME.lock in the directory
  char refused_name[80] = {};           ///< NAME.refused
  std::atomic<bool> has_duty{false};    ///< its record names dead holders whose strays nobody has ended yet
  std::atomic<void*> session{nullptr};  ///< the lock_session of its handle; not for signal handlers
  std::atomic<int> keeper_group{-1};
  std::atomic<bool (*)(int, int) noexcept> keeper_drop{nullptr};
  std::atomic<bool (*)(int, int) noexcept> keeper_replace{nullptr};
  std::atomic<bool (*)(int) noexcept> keeper_healthy{nullptr};
};

inline constexpr int max_locks = 64;
inline constinit lock_slot lock_slots[max_locks];

/// A page that a forked copy sees wiped; null where the system has none.
inline constinit std::atomic<unsigned*> lock_owner_page{nullptr};

/// True in a copy of the owner's memory: after a fork that ran no pthread_atfork handlers.
inline bool is_forked_copy() noexcept {
  const unsigned* page = lock_owner_page.load(std::memory_order_acquire);
  return page != nullptr && *page == 0;
}

/// This very process took the lock. False in every copy, also in one that shares its memory
/// (vfork).
inline bool owned_here(const lock_slot& slot) noexcept {
  return slot.owner.load(std::memory_order_relaxed) == platform::sys::getpid() && !is_forked_copy();
}

/// Takes the slot for a change; false if it is no longer in that state.
inline bool begin_change(lock_slot& slot, int from = lock_slot::held) noexcept {
  return slot.state.compare_exchange_strong(from, lock_slot::busy, std::memory_order_acquire);
}
inline void end_change(lock_slot& slot, int to = lock_slot::held) noexcept {
  if (to == lock_slot::free) {
    slot.owner.store(0, std::memory_order_relaxed);
    slot.keeper_group.store(-1, std::memory_order_relaxed);
    slot.session.store(nullptr, std::memory_order_relaxed);
    slot.generation.fetch_add(1, std::memory_order_relaxed);
  }
  slot.state.store(to, std::memory_order_release);
}

/// Removes NAME.lock, if it still is the file that is held, while it is held. Never after closing
/// it, and never by rename: in a model each gives two holders.
inline void unlink_held_file(lock_slot& slot) noexcept {
  struct stat facts;
  if (!slot.lock.intact() || !slot.directory.intact()) return;
  const int directory = slot.directory.get();
  if (platform::sys::fstatat(directory, slot.file_name, &facts, AT_SYMLINK_NOFOLLOW) != 0 || !slot.lock.is(facts))
    return;
  platform::sys::unlinkat(directory, slot.refused_name);
  platform::sys::unlinkat(directory, slot.file_name);
}

/// Closes this process's descriptors of a busy slot. The socket goes last: its end wakes waiters.
inline void close_slot_files(lock_slot& slot) noexcept {
  slot.lock.close();
  slot.directory.close();
  slot.socket.close();
}

/// Frees every lock that no group keeps: unlinked while held, then closed. For exit and signal
/// handlers; does nothing in a forked copy. A lock that another thread is changing is waited
/// for, one second at most.
inline void lock_release_all_unkept() noexcept {
  for (lock_slot& slot : lock_slots) {
    for (int tries = 0; slot.state.load(std::memory_order_acquire) == lock_slot::busy && tries < 1000; ++tries) {
      if (slot.owner.load(std::memory_order_relaxed) != platform::sys::getpid()) break;
      platform::sys::sleep_for(1'000'000);
    }
    if (slot.state.load(std::memory_order_acquire) != lock_slot::held || !owned_here(slot) ||
        slot.keeper_group.load(std::memory_order_relaxed) >= 0 || !begin_change(slot))
      continue;
    unlink_held_file(slot);
    close_slot_files(slot);
    end_change(slot, lock_slot::free);
  }
}

/// True if the file of a lock tells the next holder what this one has not done. Async-signal-safe.
inline bool lock_has_duty() noexcept {
  for (const lock_slot& slot : lock_slots)
    if (slot.state.load(std::memory_order_acquire) != lock_slot::free && owned_here(slot) &&
        slot.has_duty.load(std::memory_order_relaxed))
      return true;
  return false;
}

/// Closes the owner's copies of the locks that this group keeps; the warden's go on holding them.
inline void lock_close_kept(int group_slot) noexcept {
  for (lock_slot& slot : lock_slots) {
    if (slot.state.load(std::memory_order_acquire) != lock_slot::held ||
        slot.keeper_group.load(std::memory_order_relaxed) != group_slot || !owned_here(slot) || !begin_change(slot))
      continue;
    close_slot_files(slot);
    end_change(slot, lock_slot::free);
  }
}

/// Says who keeps the lock from now on. The slot must be held by this process.
inline void lock_set_keeper(lock_slot& slot, const lock_keeper& keeper) noexcept {
  slot.keeper_drop.store(keeper.drop, std::memory_order_relaxed);
  slot.keeper_replace.store(keeper.replace, std::memory_order_relaxed);
  slot.keeper_healthy.store(keeper.healthy, std::memory_order_relaxed);
  slot.keeper_group.store(keeper.group_slot, std::memory_order_release);
}

inline lock_keeper keeper_of(const lock_slot& slot) noexcept {
  lock_keeper keeper;
  keeper.group_slot = slot.keeper_group.load(std::memory_order_acquire);
  keeper.drop = slot.keeper_drop.load(std::memory_order_relaxed);
  keeper.replace = slot.keeper_replace.load(std::memory_order_relaxed);
  keeper.healthy = slot.keeper_healthy.load(std::memory_order_relaxed);
  return keeper;
}

inline int slot_index(const lock_slot& slot) noexcept { return static_cast<int>(&slot - lock_slots); }

/// Ends one lock of this process: kept by a group, it goes when the group is empty; else now.
/// Not for a slot of another generation: see lock_session. Returns false if it was not held.
inline bool release_slot(lock_slot& slot) noexcept {
  if (!owned_here(slot) || !begin_change(slot)) return false;
  const lock_keeper keeper = keeper_of(slot);
  if (keeper.group_slot < 0) unlink_held_file(slot);
  else if (keeper.drop != nullptr)
    keeper.drop(keeper.group_slot,
                slot_index(slot));  // false: warden gone, the file stays as record
  close_slot_files(slot);
  end_change(slot, lock_slot::free);
  return true;
}

}  // namespace instance_guard::detail
