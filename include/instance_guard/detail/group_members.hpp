// layer 3: who is in a group, as its owner sees it. Allocates.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <system_error>
#include <vector>

#include "../platform/platform.hpp"
#include "../process_identity.hpp"
#include "group_slot.hpp"
#include "warden_start.hpp"

namespace instance_guard::detail {

/// Living descendants of the group's wardens, oldest first. A look at /proc while processes come
/// and go: it informs, and ends nobody.
inline std::vector<process_identity> group_members(const group_slot& slot, std::error_code& ec) {
  std::vector<platform::process_stat> all;
  char entries[8192];
  const int result = platform::for_each_process(
      entries, sizeof entries,
      [](pid_t pid, void* context) {
        platform::process_stat facts;
        if (platform::read_process_stat(pid, facts) == 0)
          static_cast<std::vector<platform::process_stat>*>(context)->push_back(facts);
        return true;
      },
      &all);
  if (result < 0) {
    ec = system_error(result);
    return {};
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.start_time != b.start_time ? a.start_time < b.start_time : a.pid < b.pid;
  });
  // The wardens of nested groups are found, but not listed.
  std::vector<pid_t> found;
  for (int i = 0; i < slot.links.load(std::memory_order_acquire); ++i)
    found.push_back(slot.link[i].pid.load(std::memory_order_relaxed));
  std::vector<bool> is_found(all.size());
  for (bool more = true; more;) {
    more = false;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (is_found[i] || std::find(found.begin(), found.end(), all[i].parent) == found.end()) continue;
      is_found[i] = more = true;
      found.push_back(all[i].pid);
    }
  }
  const process_identity self = process_identity::self();
  std::vector<process_identity> members;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool ended = all[i].state == 'X' || (all[i].state == 'Z' && all[i].threads <= 1);
    if (!is_found[i] || ended || all[i].pid == self.pid) continue;  // its warden may be above the owner
    bool is_warden = false;
    for (const group_slot& each : group_slots)
      for (int k = 0; k < each.links.load(std::memory_order_acquire); ++k)
        if (each.link[k].pid.load(std::memory_order_relaxed) == all[i].pid) is_warden = true;
    if (is_warden) continue;
    process_identity who = self;
    who.pid = all[i].pid;
    who.start_time = all[i].start_time;
    members.push_back(who);
  }
  return members;
}

}  // namespace instance_guard::detail
