// layer 3: a warden below the warden, for a group within a group.
//
// It is started by the first one, which is small, never by the program, which may have grown; it
// serves the same owner on a channel of its own. Between the two wardens runs a lifeline: its
// end-of-file means that the other one is dead. Over it the nested one says whether it has
// anybody, and is told to end. Runs in the wardens.
#pragma once

#include "../platform/platform.hpp"
#include "warden_kill.hpp"
#include "warden_start.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Starts the warden of a nested group, which answers itself. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int take_nested(warden_state& warden, const wire::group_request& request,
                                                  wire::received& got) noexcept {
  if (warden.phase != ending::none || warden.goodbye) return -ECANCELED;
  if (got.count < 2) return -EINVAL;
  int result = check_owner(warden, request.thread);
  if (result < 0) return result;
  if (!warden.nested.reserve(warden.nested.size() + 1)) return -ENOMEM;
  int lifeline[2] = {-1, -1};
  result = sys::socketpair_seqpacket(lifeline);
  if (result < 0) return result;
  warden_state* below = new_warden_state();
  long child = -ENOMEM;
  if (below != nullptr) {
    below->channel = got.descriptors[1];
    below->owner_process = warden.owner_process;
    below->owner = warden.owner;
    below->owner_start = warden.owner_start;
    below->lifeline = lifeline[1];
    below->hello = got.descriptors[0];
    below->grace = request.grace;
    below->stop_signal = request.stop_signal;
    child = start_warden(*below, SIGCHLD);
    delete_warden_state(below);
  }
  sys::close(lifeline[1]);
  if (child < 0) {
    sys::close(lifeline[0]);
    return static_cast<int>(child);
  }
  warden_nested entry;
  entry.pid = static_cast<pid_t>(child);
  entry.lifeline = lifeline[0];
  warden.nested.push(entry);
  warden.anybody = warden.changed = true;
  return 0;
}

/// What the nested ones say. Their entries start at `first` of the poll set.
INSTANCE_GUARD_NO_SANITIZE inline void hear_nested(warden_state& warden, uint32_t first) noexcept {
  for (uint32_t i = 0; i < warden.nested.size() && first + i < warden.poll_set.size(); ++i) {
    warden_nested& each = warden.nested[i];
    if (warden.poll_set[first + i].revents == 0) continue;
    for (;;) {
      wire::header word;
      wire::received got;
      wire::receive(each.lifeline, &word, sizeof word, got);
      if (got.size < 0) break;
      warden.changed = true;
      if (got.size == 0) {  // dead, and soon reaped; until then its children may live
        each.idle = false;
        close_fd(each.lifeline);
        break;
      }
      each.idle = word.what == wire::kind::empty;
    }
  }
}

/// What the warden above says.
INSTANCE_GUARD_NO_SANITIZE inline void hear_parent(warden_state& warden) noexcept {
  for (;;) {
    wire::terminate_request request;
    wire::received got;
    wire::receive(warden.lifeline, &request, sizeof request, got);
    if (got.size < 0) return;
    if (got.size == 0) {
      close_fd(warden.lifeline);
      warden.owner_gone = warden.owner_closed = true;
      return;
    }
    begin_ending(warden, request.grace);
  }
}

/// At the end: the nested ones, which have nobody left, are to go. True: they are gone.
INSTANCE_GUARD_NO_SANITIZE inline bool dismiss_nested(warden_state& warden) noexcept {
  const int64_t now = sys::monotonic_now();
  if (warden.dismissed_at == 0) warden.dismissed_at = now;
  for (warden_nested& each : warden.nested) {
    close_fd(each.lifeline);
    sys::kill(each.pid, SIGCONT);
    if (now > warden.dismissed_at + 2'000 * millisecond) sys::kill(each.pid, SIGKILL);
  }
  return warden.nested.empty();
}

}  // namespace instance_guard::detail
