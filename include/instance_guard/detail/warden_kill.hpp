// layer 3: the warden ends its descendants.
//
// First the group's stop_signal and SIGCONT, once to each, but not to what those start in answer to
// it (the commands of a shell's trap): that has the grace for its work. Then SIGKILL, again and
// again, until waitid says ECHILD. The warden is the reaper of all that lose their parent, so
// ECHILD means that nothing is left, and nothing is called empty on other grounds unless some
// are to be spared. What can't be killed does not stop the rest. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "stray_round.hpp"
#include "warden_reap.hpp"
#include "warden_scan.hpp"
#include "warden_state.hpp"
#include "warden_together.hpp"
#include "warden_told.hpp"

namespace instance_guard::detail {

inline constexpr int64_t millisecond = 1'000'000;
/// After this a terminate() is told what is left; the end of the owner is never given up.
inline constexpr int64_t kill_patience = 8'000 * millisecond;
/// The same where SIGKILL was refused: the wait would not change it.
inline constexpr int64_t refused_patience = 300 * millisecond;

/// True if the owner has ended, or is about to: what then is ended comes to no end before.
INSTANCE_GUARD_NO_SANITIZE inline bool is_final(const warden_state& warden) noexcept {
  return warden.owner_gone || warden.goodbye;
}

/// True if somebody must be told when nothing is left.
INSTANCE_GUARD_NO_SANITIZE inline bool is_watched(warden_state& warden) noexcept {
  if (is_final(warden) || warden.phase != ending::none || !warden.waiters.empty() || warden.lifeline >= 0) return true;
  for (const warden_lock& each : warden.locks)
    if (each.dropped) return true;
  return false;
}

/// True if it is known without a look that a child of the warden is to be spared.
INSTANCE_GUARD_NO_SANITIZE inline bool is_spared_child(const warden_state& warden, pid_t pid) noexcept {
  if (pid == warden.program) return true;
  for (const warden_nested& each : warden.nested)
    if (each.pid == pid) return true;
  for (const warden_child& each : warden.children)
    if (each.pid == pid) return each.outlives;
  return false;
}

/// True if the last scan has seen each child of the warden, or it is known without that. One that is
/// hidden (hidepid, and it runs as another user) is no reason to call the group empty.
INSTANCE_GUARD_NO_SANITIZE inline bool are_children_seen(warden_state& warden) noexcept {
  pid_t pids[1024];
  const int count = platform::own_children(pids, 1024);
  for (int i = 0; i < count; ++i)
    if (find_scanned(warden.now, pids[i]) == nullptr && !is_spared_child(warden, pids[i])) return false;
  return true;
}

/// True if the last scan has met somebody who is to be ended, and not by a nested warden.
INSTANCE_GUARD_NO_SANITIZE inline bool is_anybody_left(warden_state& warden) noexcept {
  for (const scanned& each : warden.now) {
    // Dead, and only its own parent can reap it: one that is spared, else it would be counted.
    if (each.state == 'Z' && each.parent != warden.self) continue;
    if (is_target(each) && (each.flags & is_below_nested) == 0) return true;
  }
  return false;
}

/// Finds out whether anything is left that is not to be spared.
INSTANCE_GUARD_NO_SANITIZE inline void look_whether_empty(warden_state& warden) noexcept {
  if (!warden.changed) return;
  warden.changed = false;
  warden.empty = warden.empty_is_certain = !warden.anybody;
  if (!warden.anybody) return;
  for (const warden_child& each : warden.children)
    if (!each.outlives) return;
  for (const warden_nested& each : warden.nested)
    if (!each.idle) return;
  // Only spared ones, wardens of nested groups, or orphans: a look at each tells.
  if (scan_descendants(warden) && is_anybody_left(warden)) return;
  // Twice: what forks and ends all the time can slip through one pass.
  for (int pass = 0; pass < 2; ++pass) {
    if (!scan(warden)) {
      warden.empty = !platform::can_list_processes;  // then there is nothing more to see
      return;
    }
    if (is_anybody_left(warden)) return;
  }
  warden.empty = are_children_seen(warden);
  warden.changed = !warden.empty;  // one of them may just have come
}

/// Begins to end everything, or shortens an end that has begun.
INSTANCE_GUARD_NO_SANITIZE inline void begin_ending(warden_state& warden, int64_t grace) noexcept {
  const int64_t now = sys::monotonic_now();
  // A program below its warden starts others without a word to it: what was found before may be old.
  warden.changed = true;
  if (grace < 0) grace = warden.grace;
  const int64_t end = grace > INT64_MAX - now ? INT64_MAX : now + grace;
  if (warden.phase == ending::none) {
    warden.phase = ending::stopping;
    warden.together_spares = false;
    warden.phase_began = now;
    warden.began_clock = platform::process_clock_now();
    for (warden_nested& each : warden.nested) each.told = false;
    warden.phase_ends = end;
    warden.next_round = now;
    warden.round_pause = 0;
  } else if (warden.phase == ending::stopping && end < warden.phase_ends) {
    warden.phase_ends = end;
  }
}

/// After the grace: from now on SIGKILL. What the kernel can end at once is ended before any look.
INSTANCE_GUARD_NO_SANITIZE inline void begin_killing_in_time(warden_state& warden) noexcept {
  const int64_t now = sys::monotonic_now();
  if (warden.phase != ending::stopping || now < warden.phase_ends) return;
  warden.phase = ending::killing;
  warden.kill_began = now;
  warden.next_round = now;
  warden.round_pause = 0;
  end_together(warden);
}

/// Marks what was started by those who have had the stop signal, and live: the commands of a shell's trap, say.
INSTANCE_GUARD_NO_SANITIZE inline void find_answers(warden_state& warden) noexcept {
  for (bool more = true; more;) {
    more = false;
    for (scanned& each : warden.now) {
      if ((each.flags & was_stopped) != 0 || each.parent == warden.self || each.start_time < warden.began_clock)
        continue;
      const scanned* parent = find_scanned(warden.now, each.parent);
      if (parent == nullptr || (parent->flags & was_stopped) == 0) continue;
      each.flags |= was_stopped;
      more = true;
    }
  }
}

/// One round of signals. The number of processes that are still there.
INSTANCE_GUARD_NO_SANITIZE inline uint32_t signal_round(warden_state& warden, int number, uint8_t done) noexcept {
  if (!scan_descendants(warden) && !scan(warden)) {
    // No memory, or no list of processes: at least the children that it has started itself, each
    // with its process group, whose number is its own until it is reaped. Once, or SIGKILL.
    for (const warden_child& each : warden.children) {
      if (each.pid <= 1 || each.outlives || (number != SIGKILL && warden.round_pause != 0)) continue;
      if (sys::kill(-each.pid, number) < 0) sys::kill(each.pid, number);  // before its setpgid
      if (number != SIGKILL) sys::kill(-each.pid, SIGCONT);
    }
    return warden.children.size();
  }
  uint32_t left = 0;
  const bool killing = number == SIGKILL;
  if (!killing) find_answers(warden);
  const bool spare_nested = !killing || sys::monotonic_now() < warden.kill_began + 2'000 * millisecond;
  for (scanned& each : warden.now) {
    const bool nested = (each.flags & (is_nested_warden | is_below_nested)) != 0;
    if (nested && !spare_nested && (each.flags & is_kept) == 0) {
      ++left;
      each.refused = static_cast<int16_t>(signal_scanned(warden, each, number));
      continue;
    }
    if (!is_target(each) || each.state == 'Z') continue;
    ++left;
    if (nested) continue;
    // In uninterruptible sleep, and not known whether it is to be spared: when in doubt, don't.
    if ((each.flags & is_looked_at) == 0) continue;
    if (!killing && (each.flags & done) != 0) continue;
    const bool told = !killing && was_told_to_stop(warden, each);
    if (!told) each.refused = static_cast<int16_t>(signal_scanned(warden, each, number));
    if (!killing && (!told || each.state == 'T')) signal_scanned(warden, each, SIGCONT);
    each.flags |= done;
  }
  return left;
}

/// True if a child of the warden may be killed on sight, and has not been.
INSTANCE_GUARD_NO_SANITIZE inline bool is_fair_game(warden_state& warden, pid_t pid) noexcept {
  if (is_spared_child(warden, pid)) return false;
  platform::process_stat facts;
  if (platform::read_process_stat(pid, facts) != 0 || facts.state == 'Z') return false;
  const scanned* known = find_scanned(warden.now, pid);
  if (known != nullptr && known->start_time == facts.start_time && (known->flags & is_looked_at) != 0)
    return is_target(*known) && (known->flags & (is_below_nested | was_killed)) == 0;
  return facts.state != 'D' && !has_keep_mark(pid);
}

/// Gives the warden more of the processors, if it may have it, or back what it took.
INSTANCE_GUARD_NO_SANITIZE inline void hurry(warden_state& warden, bool on) noexcept {
  if (on == warden.hurries) return;
  platform::scheduling how = warden.attributes.schedule;
  if (on && how.policy == 0) how.nice = -20;
  platform::set_schedule(0, how);
  warden.hurries = on;
}

/// What forks and ends as fast as it can outruns a look at all processes, but its orphans become
/// children of the warden, and those are listed quickly.
/// (Making them yield instead was tried: they then hold locks of the kernel, and die, slowly.)
/// Each is killed once: a warden that waits here for the dead to be gone keeps them from dying,
/// where a thousand wardens do so at once.
INSTANCE_GUARD_NO_SANITIZE inline void kill_children_fast(warden_state& warden) noexcept {
  if (platform::process_list_is_ours() != 0) return;  // these numbers mean others
  constexpr int most = 256;
  pid_t pids[most], killed[most];
  int killed_count = 0;
  const auto is_killed = [&](pid_t pid) noexcept {
    for (int k = 0; k < killed_count; ++k)
      if (killed[k] == pid) return true;
    return false;
  };
  const int64_t end = sys::monotonic_now() + 20 * millisecond;  // there are others to listen to
  for (int i = 0; warden.anybody && sys::monotonic_now() < end; ++i) {
    const int count = platform::own_children(pids, most);
    bool more = false;
    for (int k = 0; k < count; ++k) {
      if (is_killed(pids[k]) || !is_fair_game(warden, pids[k]) || sys::kill(pids[k], SIGKILL) != 0) continue;
      if (killed_count == most) killed_count = 0;  // most of them are gone by now
      killed[killed_count++] = pids[k];
      more = true;
    }
    reap(warden);
    if (!more) return;
    if (i == 4) hurry(warden, true);
  }
}

INSTANCE_GUARD_NO_SANITIZE inline survival why_left(const scanned& entry) noexcept {
  if (entry.refused == -EPERM) return survival::other_user;
  if (entry.state == 't' || entry.state == 'Z') return survival::traced;
  if (entry.state == 'D') return survival::uninterruptible;
  return survival::still_ending;
}

/// True if waiting longer would not help a terminate().
INSTANCE_GUARD_NO_SANITIZE inline bool has_tried_enough(warden_state& warden, int64_t now) noexcept {
  if (now - warden.kill_began >= kill_patience) return true;
  if (now - warden.kill_began < refused_patience) return false;
  bool refused = false;
  for (const scanned& each : warden.now) {
    if ((each.flags & is_nested_warden) != 0 && each.state != 'Z') return false;
    if (!is_target(each)) continue;
    // A dead child that is still there after a round of reaping waits for its debugger.
    const scanned* seen = find_scanned(warden.before, each.pid);
    const bool unreaped = each.state == 'Z' && each.parent == warden.self && seen != nullptr && seen->state == 'Z' &&
                          seen->start_time == each.start_time;
    if (each.refused != -EPERM && !unreaped) return false;
    refused = true;
  }
  return refused;
}

/// Answers those who wait for `what`.
INSTANCE_GUARD_NO_SANITIZE inline void answer_waiters(warden_state& warden, wire::kind what, int error = 0) noexcept {
  wire::terminated report;
  report.error = error;
  report.mechanism = warden.mechanism;
  // Who left its process group may have been missed.
  report.proven_empty = warden.empty && warden.mechanism != static_cast<uint32_t>(containment::process_groups);
  if (!warden.empty) {
    for (const scanned& each : warden.now) {
      if (!is_target(each) || report.count == wire::max_remaining) continue;
      wire::remaining& left = report.left[report.count++];
      left.pid = each.pid;
      left.start_time = each.start_time;
      left.why = static_cast<uint32_t>(why_left(each));
      platform::process_stat facts;
      if (platform::read_process_stat(each.pid, facts) == 0)
        for (int i = 0; i < 15; ++i) left.name[i] = facts.name[i];
    }
  }
  const size_t size = sizeof report - sizeof(wire::remaining) * (wire::max_remaining - report.count);
  for (uint32_t i = 0; i < warden.waiters.size();) {
    if (warden.waiters[i].what != what) {
      ++i;
      continue;
    }
    wire::send(warden.waiters[i].channel, &report, size);
    sys::close(warden.waiters[i].channel);
    warden.waiters.remove(i);
  }
}

/// Ends, round by round. Called whenever the warden wakes up.
INSTANCE_GUARD_NO_SANITIZE inline void go_on_ending(warden_state& warden) noexcept {
  if (warden.phase == ending::none) return;
  // Nobody is left and no strays are to be looked for: a look at all processes would find nothing.
  if (warden.empty && !warden.marked) warden.strays_done = true;
  if (warden.empty && (!is_final(warden) || warden.strays_done)) {
    warden.phase = ending::none;
    warden.former_ended = warden.replaced != 0;
    hurry(warden, false);
    answer_waiters(warden, wire::kind::terminate);
    return;
  }
  const int64_t now = sys::monotonic_now();
  // Who ended may have left orphans, which are children now: look at once.
  if (now < warden.next_round && !(warden.reaped && warden.phase == ending::killing)) return;
  warden.reaped = false;
  const bool killing = warden.phase == ending::killing;
  const int number = killing ? SIGKILL : warden.stop_signal;
  for (warden_nested& each : warden.nested) {
    if (each.told) continue;
    wire::terminate_request request;
    request.grace = warden.phase_ends > now ? warden.phase_ends - now : 0;
    each.told = wire::send(each.lifeline, &request, sizeof request) >= 0;
  }
  if (killing && warden.round_pause != 0) end_together(warden);
  signal_round(warden, number, killing ? was_killed : was_stopped);
  if (killing) kill_children_fast(warden);
  if (is_final(warden)) warden.strays_done = stray_round(warden, number);
  warden.changed = true;
  reap(warden);
  look_whether_empty(warden);
  if (killing && !warden.empty && !is_final(warden) && has_tried_enough(warden, now)) {
    warden.phase = ending::none;
    hurry(warden, false);
    answer_waiters(warden, wire::kind::terminate);
    return;
  }
  // From 1 ms on, slower and slower: a signal takes its time, and a scan costs more than that.
  const int64_t longest = killing && now - warden.kill_began < kill_patience ? 20 * millisecond : 250 * millisecond;
  warden.round_pause = warden.round_pause == 0 ? millisecond : warden.round_pause * 2;
  if (warden.round_pause > longest) warden.round_pause = longest;
  warden.next_round = sys::monotonic_now() + warden.round_pause;
}

}  // namespace instance_guard::detail
