// layer 3: ends what is left in the control group of a holder that was killed together with its warden.
//
// Only that finds what has cleared its environment and its death signal. The record, which anybody
// of that user may have written, is believed only if the group is named after the dead warden and
// belongs to that user. Thread-safe. Not for signal handlers.
#pragma once

#include <chrono>
#include <cstdint>

#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "../process_identity.hpp"
#include "deadline.hpp"
#include "warden_scan.hpp"

namespace instance_guard::detail {

/// Whether all in the group may be ended: each started after the warden, and none is to be kept.
inline bool may_end_group(const platform::control_group& group, std::uint64_t warden_start) noexcept {
  struct search {
    std::uint64_t since;
    bool spare;
  } members = {warden_start, false};
  const auto visit = [](pid_t pid, void* context) noexcept {
    auto& all = *static_cast<search*>(context);
    platform::process_stat facts;
    const int result = pid > 0 ? platform::read_process_stat(pid, facts) : -EPERM;
    if (result == -ENOENT || result == -ESRCH) return true;
    all.spare = result != 0 || facts.state == 'D' || facts.start_time < all.since || has_keep_mark(pid);
    return !all.spare;
  };
  return platform::cgroup::for_each_member(group.directory, visit, &members) == 0 && !members.spare;
}

/// Ends the group that `dead` names, and removes it. Waits for 10 s at most.
inline void sweep_control_group(const lock_record& dead) noexcept {
  const process_identity here = process_identity::self();
  if (dead.control_group.empty() || !dead.warden.complete() || dead.process.boot != here.boot ||
      dead.process.pid_namespace != here.pid_namespace || is_alive(dead.process) || is_alive(dead.warden))
    return;
  platform::control_group group;
  if (platform::open_control_group(group, dead.control_group.c_str(), dead.warden.pid, dead.warden.start_time,
                                   dead.uid) < 0)
    return;
  const deadline end(std::chrono::seconds(10));
  for (std::int64_t pause = 1'000'000; !platform::is_control_group_empty(group) && !end.passed();) {
    if (!may_end_group(group, dead.warden.start_time) || platform::kill_control_group(group) < 0) break;
    platform::sys::sleep_for(pause);
    if (pause < 20'000'000) pause *= 2;
  }
  platform::remove_control_group(group);
}

}  // namespace instance_guard::detail
