// layer 3: the owner gives its warden copies of its locks; see lock_keeper in lock_slot.hpp.
//
// Async-signal-safe, but for the mutex that nothing here takes.
#pragma once

#include <cerrno>

#include "../platform/platform.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "lock_slot.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// Gives one warden the lock as it is now. 0, or a negated errno.
inline int give_lock(const warden_link& link, const lock_slot& lock, wire::kind what) noexcept {
  wire::lock_request request;
  request.head.what = what;
  request.slot = slot_index(lock);
  request.thread = asking_thread();
  request.device = lock.lock.device.load(std::memory_order_relaxed);
  request.inode = lock.lock.inode.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < sizeof request.file; ++i) {
    request.file[i] = lock.file_name[i];
    request.refused[i] = lock.refused_name[i];
  }
  int descriptors[3] = {lock.lock.get(), lock.directory.get(), lock.socket.get()};
  request.has_socket = descriptors[2] >= 0;
  return ask(link, request, descriptors, request.has_socket ? 3 : 2);
}

inline bool keeper_drop(int group, int lock) noexcept {
  const group_slot& slot = group_slots[group];
  wire::lock_request request;
  request.head.what = wire::kind::drop_lock;
  request.slot = lock;
  bool heard = false;
  for (int i = 0; i < slot.links.load(std::memory_order_acquire); ++i)
    if (ask(slot.link[i], request) == 0) heard = true;
  return heard;
}

/// True if the warden that starts children now has the new file. Older ones, which their owner no
/// longer commands, may keep the old one: they will not unlink what is not theirs.
inline bool keeper_replace(int group, int lock) noexcept {
  const group_slot& slot = group_slots[group];
  int result = -EPIPE;
  for (int i = 0; i < slot.links.load(std::memory_order_acquire); ++i)
    result = give_lock(slot.link[i], lock_slots[lock], wire::kind::replace_lock);
  return result == 0;
}

/// Gives a new warden every lock that the group keeps. 0, or a negated errno.
inline int give_kept_locks(const group_slot& slot, const warden_link& link) noexcept {
  for (const lock_slot& each : lock_slots) {
    if (each.state.load(std::memory_order_acquire) == lock_slot::free ||
        each.keeper_group.load(std::memory_order_relaxed) != slot_index(slot))
      continue;
    const int result = give_lock(link, each, wire::kind::keep_lock);
    if (result < 0) return result;
  }
  return 0;
}

}  // namespace instance_guard::detail
