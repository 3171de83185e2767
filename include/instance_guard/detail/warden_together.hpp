// layer 3: a group of the kernel's for all that a warden starts, where one may be made.
//
// Its members are ended at once, however fast they fork, also what has cleared its death signal and
// forgotten its mark. It is used beside the signals of warden_kill.hpp, never instead: what counts
// is ECHILD. What outlives the group is born outside; where somebody inside is to be spared, the
// kernel is not asked. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "keep_mark.hpp"
#include "warden_scan.hpp"
#include "warden_spawn.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void end_at_once(void*) noexcept { sys::exit_group(0); }

/// Tries whether a child lives that is born in the group. Linux 6.18 kills it if cgroup.kill was written to more often
/// here than where its parent is, or less often.
INSTANCE_GUARD_NO_SANITIZE inline bool can_be_born_in(const platform::control_group& group, spawn_slot& slot) noexcept {
  platform::clone_request how;
  how.flags = platform::brief_flags;
  how.stack = slot.stack;
  how.stack_size = sizeof slot.stack;
  how.control_group = group.directory;
  const long child = platform::clone_call(how, end_at_once, nullptr);
  if (child < 0) return false;
  siginfo_t info = {};
  int result = 0;
  while ((result = sys::waitid(P_PID, static_cast<pid_t>(child), &info, WEXITED | __WALL)) == -EINTR) {
  }
  return result == 0 && info.si_code == CLD_EXITED;
}

/// At the start, once it is a subreaper, and again after the kernel has ended a group. Without one nothing changes.
INSTANCE_GUARD_NO_SANITIZE inline void make_together(warden_state& warden) noexcept {
  if constexpr (!platform::can_end_control_groups) return;
  // A child must be born in it: one that has been moved there may have started others before.
  if (warden.board == nullptr || warden.mechanism != static_cast<uint32_t>(containment::subreaper)) return;
  platform::process_stat facts;
  spawn_slot* slot = spare_slot(warden);
  if (slot == nullptr || platform::read_process_stat(warden.self, facts) != 0 ||
      platform::make_control_group(warden.together, warden.self, facts.start_time) != 0)
    return;
  // The program waits for the warden's word: it has one thread, and has started nobody.
  if (!can_be_born_in(warden.together, *slot) ||
      (warden.program > 0 && platform::enter_control_group(warden.together, warden.program) != 0)) {
    platform::remove_control_group(warden.together);
    return;
  }
  warden.mechanism = static_cast<uint32_t>(containment::cgroup);
}

/// A warden in another pid namespace takes this one for dead, and removes its group while nobody lives in it. True if
/// there is a new one instead.
INSTANCE_GUARD_NO_SANITIZE inline bool replace_together(warden_state& warden) noexcept {
  if (!platform::is_control_group_removed(warden.together)) return false;
  platform::close_control_group(warden.together);
  make_together(warden);
  return warden.together.directory >= 0;
}

/// Before a spawn: a group that the kernel has ended gives its place to a new one. If somebody in it
/// can't die, it stays for his sake, and new children are born outside.
INSTANCE_GUARD_NO_SANITIZE inline void renew_together(warden_state& warden) noexcept {
  if (!warden.together_ended) return;
  warden.mechanism = static_cast<uint32_t>(containment::subreaper);
  if (!platform::is_control_group_empty(warden.together)) return;
  warden.together_ended = false;
  platform::remove_control_group(warden.together);
  make_together(warden);
}

/// True if a member is one of those that the warden ends: it may be signalled, its parents lead to the warden, and
/// neither it nor one of them is to be spared. What can't be told is a no.
INSTANCE_GUARD_NO_SANITIZE inline bool may_end_member(warden_state& warden, pid_t member) noexcept {
  const int reached = sys::kill(member, 0);
  if (reached < 0) return reached == -ESRCH;  // the kernel does not ask whose a member is
  pid_t at = member;
  for (int depth = 0; depth < 256 && at != warden.self; ++depth) {
    platform::process_stat facts;
    if (at <= 1 || platform::read_process_stat(at, facts) != 0) return at == member && sys::kill(at, 0) == -ESRCH;
    if (facts.state == 'D') return false;  // its environment may not be looked at
    const keep_answer keep = facts.state == 'Z' ? keep_answer::no : keep_mark_of(at);
    if (keep == keep_answer::yes) warden.together_spares = true;
    if (keep != keep_answer::no) return false;
    const scanned* known = find_scanned(warden.now, at);
    if (known != nullptr && known->start_time == facts.start_time && (known->flags & is_looked_at) != 0) {
      if ((known->flags & is_kept) != 0) warden.together_spares = true;
      return is_target(*known);
    }
    at = facts.parent;
  }
  return at == warden.self;
}

/// Ends all that are left in the group, unless one of them is to be spared. They are held still for the look:
/// what forks as fast as it can would leave the warden no time for it (200 such on two processors: 20 s).
INSTANCE_GUARD_NO_SANITIZE inline void end_together(warden_state& warden) noexcept {
  // The program is in it as well: it is ended by nobody but itself.
  if (warden.together.kill < 0 || warden.program > 0 || warden.together_spares ||
      platform::is_control_group_empty(warden.together) || platform::has_groups_below(warden.together))
    return;
  platform::freeze_control_group(warden.together, true);
  struct search {
    warden_state* warden;
    bool spare;
  } members = {&warden, false};
  const auto visit = [](pid_t pid, void* context) noexcept {
    auto& all = *static_cast<search*>(context);
    all.spare = pid <= 0 || !may_end_member(*all.warden, pid);
    return !all.spare;
  };
  const int result = platform::cgroup::for_each_member(warden.together.directory, visit, &members);
  if (result == 0 && !members.spare && !platform::has_groups_below(warden.together) &&
      platform::kill_control_group(warden.together) == 0)
    warden.together_ended = true;
  platform::freeze_control_group(warden.together, false);
}

}  // namespace instance_guard::detail
