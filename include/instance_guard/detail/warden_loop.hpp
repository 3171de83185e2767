// layer 3: the warden's life: it waits, and never for long on anybody.
//
// It ends when its owner has ended and nothing is left that descends from it.
#pragma once

#include "../platform/platform.hpp"
#include "warden_kill.hpp"
#include "warden_locks.hpp"
#include "warden_program.hpp"
#include "warden_reap.hpp"
#include "warden_requests.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Nanoseconds until something must be done without being asked; negative: nothing.
INSTANCE_GUARD_NO_SANITIZE inline int64_t time_to_wait(warden_state& warden) noexcept {
  int64_t at = INT64_MAX;
  const int64_t now = sys::monotonic_now();
  const auto not_after = [&](int64_t time) noexcept {
    if (time < at) at = time;
  };
  if (!warden.locks.empty()) not_after(warden.touch_locks_at);
  if (!warden.starting.empty()) not_after(now + 2 * millisecond);
  if (!warden.unsent.empty()) not_after(now + 100 * millisecond);
  if (warden.dismissed_at != 0) not_after(now + 50 * millisecond);
  if (warden.owner_process < 0 && !is_final(warden)) not_after(now + 200 * millisecond);
  if (warden.phase != ending::none) {
    not_after(warden.next_round);
    if (warden.phase == ending::stopping) not_after(warden.phase_ends);
    if (warden.empty) not_after(now);
  }
  if (at == INT64_MAX) return -1;
  return at > now ? at - now : 0;
}

INSTANCE_GUARD_NO_SANITIZE inline bool add_poll(warden_state& warden, int descriptor, short events) noexcept {
  return warden.poll_set.push({descriptor, events, 0});  // a negative descriptor is never ready
}

/// True if the owner is dead. Its channel may still be open in a forked copy of it.
INSTANCE_GUARD_NO_SANITIZE inline bool owner_is_dead(const warden_state& warden, const pollfd& process) noexcept {
  if (warden.owner_process >= 0) return process.revents != 0;
  platform::process_stat facts;  // without pidfds: the parent of a nested warden is another
  const int result = platform::read_process_stat(warden.owner, facts);
  return result == -ENOENT || result == -ESRCH || facts.start_time != warden.owner_start || facts.state == 'Z' ||
         facts.state == 'X';
}

/// Removes those who no longer wait. Their entries start at `first` of the poll set.
INSTANCE_GUARD_NO_SANITIZE inline void forget_waiters(warden_state& warden, uint32_t first) noexcept {
  for (uint32_t i = warden.waiters.size(); i-- > 0;) {
    if (first + i >= warden.poll_set.size() || warden.poll_set[first + i].revents == 0) continue;
    sys::close(warden.waiters[i].channel);
    warden.waiters.remove(i);
  }
}

/// Sleeps until something happens, then takes note of it.
INSTANCE_GUARD_NO_SANITIZE inline void wait_for_events(warden_state& warden) noexcept {
  constexpr uint32_t fixed = 5;
  warden.poll_set.clear();
  if (!warden.poll_set.reserve(fixed + warden.waiters.size() + warden.nested.size()) &&
      !warden.poll_set.reserve(fixed)) {
    sys::sleep_for(10 * millisecond);
    return;
  }
  add_poll(warden, warden.channel, POLLIN);
  add_poll(warden, warden.owner_gone ? -1 : warden.owner_process, POLLIN);
  add_poll(warden, warden.signals, POLLIN);
  add_poll(warden, warden.lifeline, POLLIN);
  add_poll(warden, warden.session_leader, POLLIN);
  for (const warden_waiter& each : warden.waiters) add_poll(warden, each.channel, 0);
  const uint32_t first_nested = warden.poll_set.size();
  for (const warden_nested& each : warden.nested) add_poll(warden, each.lifeline, POLLIN);
  const int ready = sys::ppoll(warden.poll_set.data(), warden.poll_set.size(), time_to_wait(warden), nullptr);
  if (ready > 0) {
    hear_nested(warden, first_nested);
    forget_waiters(warden, fixed);
    if (warden.poll_set[2].revents != 0) hear_signals(warden);
    if (warden.poll_set[0].revents != 0) take_requests(warden);
    if (warden.poll_set[3].revents != 0) hear_parent(warden);
    if (warden.poll_set[4].revents != 0) wake_stopped_owner(warden);
  }
  if (!warden.owner_gone && owner_is_dead(warden, warden.poll_set[1])) {
    warden.owner_gone = true;
    warden.owner_closed = true;
  }
}

/// True once the warden's work is done.
INSTANCE_GUARD_NO_SANITIZE inline bool is_over(warden_state& warden) noexcept {
  if (!is_final(warden) || warden.phase != ending::none || !warden.empty) return false;
  if (warden.goodbye && !warden.said_empty && warden.channel >= 0) {
    const wire::header word = {wire::kind::empty, 0};
    const long result = wire::send(warden.channel, &word, sizeof word);
    warden.said_empty = result >= 0 || result != -EAGAIN;
  }
  // An owner that said goodbye closes the locks that both have before the warden does; else there is nothing to await.
  const bool awaited = !warden.said_empty || !warden.locks.empty() || warden.has_program;
  if (awaited && !warden.owner_closed && !warden.owner_gone) return false;
  if (warden.has_program && warden.goodbye) {
    // The names go, the program does not yet: it will be missed when it does.
    release_locks(warden, true);
    close_fd(warden.channel);
  }
  return warden.program == 0 && dismiss_nested(warden);
}

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void warden_loop(warden_state& warden) noexcept {
  for (;;) {
    wait_for_events(warden);
    reap(warden);
    if (warden.adoptions >= 0) take_adoptions(warden);
    check_starting(warden);
    if (warden.keep_session) tell_stops(warden);
    if (!warden.unsent.empty()) retry_unsent(warden);
    // An end that has begun for another reason goes on; it is final from now on.
    if (warden.owner_gone && !warden.end_began) {
      warden.end_began = true;
      warden.touch_locks_at = 0;  // the files' date says when: `status` and `list` tell it
      begin_ending(warden, -1);
    }
    begin_killing_in_time(warden);
    if (is_watched(warden)) look_whether_empty(warden);
    go_on_ending(warden);
    if (warden.empty) {
      answer_waiters(warden, wire::kind::wait_idle);
      answer_waiters(warden, wire::kind::look_idle);
      release_dropped_locks(warden);
    } else {
      answer_waiters(warden, wire::kind::look_idle, ETIMEDOUT);
    }
    tell_parent(warden);
    if (!warden.locks.empty()) touch_locks(warden, sys::monotonic_now());
    if (is_over(warden)) break;
  }
  // What the owner may never hear again is in order all the same: it said goodbye, or is dead.
  platform::remove_control_group(warden.together);
  release_locks(warden, warden.goodbye);
  if (warden.has_program) end_like_program(warden);
  sys::exit_group(0);
}

}  // namespace instance_guard::detail
