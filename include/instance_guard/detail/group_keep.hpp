// layer 3: the owner gives its warden copies of its locks; see lock_keeper in lock_slot.hpp.
//
// Async-signal-safe, but for note_warden() and give_kept_locks().
#pragma once

#include <array>
#include <cerrno>
#include <utility>

#include "../platform/platform.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "lock_record.hpp"
#include "lock_session.hpp"
#include "lock_slot.hpp"
#include "lock_verify.hpp"
#include "wire.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

/// The warden at the other end.
inline process_identity identity_of(const warden_link& link) noexcept {
  process_identity who = process_identity::self();
  who.pid = link.pid.load(std::memory_order_relaxed);
  who.start_time = link.start_time.load(std::memory_order_relaxed);
  return who;
}

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

/// Has the file of a lock name a warden besides the one in its record, if it has a control group: should all be killed,
/// the next start must know each. 0, or a negated errno.
inline int note_warden(lock_slot& lock, const process_identity& warden) noexcept {
  char path[platform::control_group_path_size];
  uid_t user = 0;
  if (platform::find_control_group(warden.pid, warden.start_time, path) != 0 || !is_plain_path(path) ||
      platform::user_of_process(warden.pid, user) != 0)
    return 0;
  lock_change_scope scope;
  auto* session = static_cast<lock_session*>(lock.session.load(std::memory_order_relaxed));
  if (session == nullptr || session->record.warden == warden || !owned_here(lock) || !begin_change(lock)) return 0;
  std::array<killed_holder, 4>& all = session->further_wardens;
  std::size_t at = 0;
  while (at < all.size() && all[at].warden.pid > 0 && !(all[at].warden == warden)) ++at;
  if (at == all.size()) {  // the oldest goes
    for (at = 1; at < all.size(); ++at) all[at - 1] = std::move(all[at]);
    --at;
  }
  std::error_code ec;
  without_throwing(ec, [&] { all[at].control_group = path; });
  int result = ec ? -ENOMEM : 0;
  if (result == 0) {
    all[at].user = user;
    all[at].warden = warden;
    result = rewrite_record(*session, lock, scope);
  }
  end_change(lock);
  return result;
}

/// Gives a new warden every lock that the group keeps. 0, or a negated errno.
inline int give_kept_locks(const group_slot& slot, const warden_link& link) noexcept {
  for (lock_slot& each : lock_slots) {
    if (each.state.load(std::memory_order_acquire) == lock_slot::free ||
        each.keeper_group.load(std::memory_order_relaxed) != slot_index(slot))
      continue;
    int result = give_lock(link, each, wire::kind::keep_lock);
    if (result == 0) result = note_warden(each, identity_of(link));
    if (result < 0) return result;
  }
  return 0;
}

}  // namespace instance_guard::detail
