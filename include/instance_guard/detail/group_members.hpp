// layer 3: who is in a group, as its owner sees it. Allocates.
#pragma once

#include <system_error>
#include <vector>

#include "../platform/platform.hpp"
#include "../process_identity.hpp"
#include "group_slot.hpp"
#include "process_descendants.hpp"
#include "warden_start.hpp"

namespace instance_guard::detail {

/// Living descendants of the group's wardens, oldest first.
inline std::vector<process_identity> group_members(const group_slot& slot, std::error_code& ec) {
  pid_t wardens[max_links];
  std::size_t count = 0;
  for (int i = 0; i < slot.links.load(std::memory_order_acquire); ++i)
    wardens[count++] = slot.link[i].pid.load(std::memory_order_relaxed);
  const pid_t self = platform::sys::getpid();
  std::vector<process_identity> members;
  for (const process_identity& each : descendants_of(wardens, count, ec)) {
    bool left_out = each.pid == self;  // its warden may be above the owner
    // The wardens of nested groups are found, but not listed.
    for (const group_slot& group : group_slots)
      for (int k = 0; k < group.links.load(std::memory_order_acquire); ++k)
        if (group.link[k].pid.load(std::memory_order_relaxed) == each.pid) left_out = true;
    if (!left_out) members.push_back(each);
  }
  return members;
}

}  // namespace instance_guard::detail
