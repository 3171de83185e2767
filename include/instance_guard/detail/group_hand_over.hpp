// layer 3: giving every group of a process to its child, with children and locks.
//
//   group_hand_over_begin();                      first process
//   fork();                                       its child, or that one's child, waits
//   group_hand_over_to(successor);                first process: each warden has agreed
//     group_take_over();                            successor, once it was told so
//
// Between the two nobody may use the groups.
#pragma once

#include <cerrno>

#include "../platform/platform.hpp"
#include "group_gate.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "group_start.hpp"

namespace instance_guard::detail {

/// The next forks of this process take the groups along.
inline void group_hand_over_begin() noexcept { the_gate.handing_over = true; }

/// The first process tells the wardens whom they serve from now on, and forgets the groups. 0, or
/// a negated errno: then some may serve the successor already, and end with it.
/// A successor of 0 calls the hand-over off.
inline int group_hand_over_to(pid_t successor) noexcept {
  the_gate.handing_over = false;
  if (successor == 0) return 0;
  const file_descriptor process = above_streams(platform::sys::pidfd_open(successor));
  wire::hand_over_request request;
  request.owner = successor;
  int result = 0;
  for (group_slot& slot : group_slots) {
    if (slot.state.load(std::memory_order_acquire) != group_slot::live || !owned_here(slot)) continue;
    for (int i = 0; i < slot.links.load(std::memory_order_acquire) && result == 0; ++i) {
      const int descriptor = process.get();
      result = ask(slot.link[i], request, &descriptor, process ? 1 : 0);
    }
  }
  if (result < 0) return result;
  for (group_slot& slot : group_slots) {
    int from = group_slot::live;
    if (owned_here(slot) && slot.state.compare_exchange_strong(from, group_slot::ending)) free_group_slot(slot);
  }
  return 0;
}

/// The successor is the owner now.
inline void group_take_over() noexcept {
  the_gate.handing_over = false;
  for (group_slot& slot : group_slots) {
    if (slot.state.load(std::memory_order_acquire) != group_slot::live) continue;
    slot.owner.store(platform::sys::getpid(), std::memory_order_relaxed);
    // It is not the parent of the wardens.
    for (int i = 0; i < slot.links.load(std::memory_order_acquire); ++i) {
      warden_link& link = slot.link[i];
      if (link.watch.load(std::memory_order_relaxed) < 0)
        link.watch.store(above_streams(platform::open_process_stat(link.pid.load())).release(),
                         std::memory_order_relaxed);
    }
  }
}

}  // namespace instance_guard::detail
