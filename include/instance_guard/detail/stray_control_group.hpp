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
#include "keep_mark.hpp"

namespace instance_guard::detail {

enum class group_answer { may, must_not, not_now };

/// Whether all in the group may be ended: each started after the warden, may be signalled, and is not to be kept; the
/// caller is not in it.
inline group_answer may_end_group(const platform::control_group& group, std::uint64_t warden_start) noexcept {
  if (platform::has_groups_below(group)) return group_answer::must_not;
  struct search {
    std::uint64_t since;
    group_answer answer;
  } members = {warden_start, group_answer::may};
  const auto visit = [](pid_t pid, void* context) noexcept {
    auto& all = *static_cast<search*>(context);
    platform::process_stat facts;
    if (pid == platform::sys::getpid()) all.answer = group_answer::must_not;  // it was started there itself
    if (all.answer != group_answer::may) return false;
    // Signals stop at another user's; what is written to the group does not.
    const int reached = pid > 0 ? platform::sys::kill(pid, 0) : -EPERM;
    if (reached == -ESRCH) return true;
    if (reached != 0 || platform::read_process_stat(pid, facts) != 0 || facts.start_time < all.since) {
      all.answer = platform::sys::kill(pid, 0) == -ESRCH ? group_answer::not_now : group_answer::must_not;
    } else if (facts.state == 'D') {
      all.answer = group_answer::not_now;
    } else if (facts.state != 'Z') {
      const keep_answer keep = keep_mark_of(pid);
      if (keep == keep_answer::yes) all.answer = group_answer::must_not;
      if (keep == keep_answer::unknown) all.answer = group_answer::not_now;
    }
    return all.answer == group_answer::may;
  };
  const int result = platform::cgroup::for_each_member(group.directory, visit, &members);
  return result == 0 ? members.answer : group_answer::not_now;
}

/// Ends the group of a dead holder, and removes it. Waits for 10 s at most.
inline void sweep_control_group(const killed_holder& dead) noexcept {
  const process_identity here = process_identity::self();
  if (dead.control_group.empty() || !dead.warden.complete() || dead.process.boot != here.boot ||
      dead.process.pid_namespace != here.pid_namespace || is_alive(dead.warden))
    return;
  // This very process had the name before, and its warden was killed alone: what that has left is nobody's.
  if (dead.process != here && is_alive(dead.process)) return;
  platform::control_group group;
  if (platform::open_control_group(group, dead.control_group.c_str(), dead.warden.pid, dead.warden.start_time,
                                   dead.user) < 0)
    return;
  const deadline end(std::chrono::seconds(10));
  for (std::int64_t pause = 1'000'000; !platform::is_control_group_empty(group) && !end.passed();) {
    const group_answer answer = may_end_group(group, dead.warden.start_time);
    if (answer == group_answer::must_not) break;
    if (answer == group_answer::may) platform::kill_control_group(group);
    platform::sys::sleep_for(pause);
    if (pause < 20'000'000) pause *= 2;
  }
  platform::freeze_control_group(group, false);  // its warden may have been killed while it held all still
  platform::remove_control_group(group);
}

}  // namespace instance_guard::detail
