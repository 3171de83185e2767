// layer 3: what the warden's owner was told, and others with it.
//
// Who signals every process that it knows of (a service manager, all of a cgroup) tells the warden
// too. With keep_session the warden keeps note of that, so that its owner's children, who have had
// the signal already, do not get it once more. When in doubt they do. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// A second signal counts as one of its own after this; see exit_path.hpp.
inline constexpr int64_t again_after = 250'000'000;

INSTANCE_GUARD_NO_SANITIZE inline void note_heard(warden_state& warden, const platform::taken_signal& taken) noexcept {
  if (taken.number <= 0 || taken.number >= 65) return;
  warden_heard& note = warden.heard[taken.number];
  const int64_t now = sys::monotonic_now();
  const bool late = note.passed_at != 0 && now - note.passed_at < again_after;  // of a signal that was passed on
  note = {};
  if (!late) note = {now, platform::process_clock_now(), taken.sender, 0};
}

/// Takes the note of a signal that was heard just now, if there is one: it stands for one signal.
INSTANCE_GUARD_NO_SANITIZE inline bool take_heard(warden_state& warden, int number, warden_heard& out) noexcept {
  if (number <= 0 || number >= 65) return false;
  out = warden.heard[number];
  warden.heard[number] = {};
  return out.at != 0 && sys::monotonic_now() - out.at < again_after;
}

/// A signal is passed on. Should the warden be sent it only now, its sender was slow: that says nothing
/// about the next one.
INSTANCE_GUARD_NO_SANITIZE inline void note_passed(warden_state& warden, int number) noexcept {
  if (number > 0 && number < 65) warden.heard[number].passed_at = sys::monotonic_now();
}

/// True if the sender supervises the owner: above it, in another session. Not so `pkill instance`,
/// which met owner and warden by their name, nor the shell that the owner was started from.
INSTANCE_GUARD_NO_SANITIZE inline bool is_supervisor(const warden_state& warden, pid_t sender) noexcept {
  platform::process_stat own, facts;
  if (sender <= 0 || platform::read_process_stat(warden.self, own) != 0) return false;
  pid_t at = warden.owner;
  for (int depth = 0; depth < 64 && at > 0; ++depth) {
    if (platform::read_process_stat(at, facts) != 0) return false;
    if (at == sender) return facts.session != own.session;
    at = facts.parent;
  }
  return false;
}

/// The owner wants an end to begin, perhaps because it was told stop_signal. Finds out who had that too.
INSTANCE_GUARD_NO_SANITIZE inline void note_who_was_told(warden_state& warden) noexcept {
  warden_heard last;
  warden.told_until = 0;
  if (!warden.keep_session || !take_heard(warden, warden.stop_signal, last)) return;
  if (is_supervisor(warden, last.sender)) warden.told_until = last.clock;
}

INSTANCE_GUARD_NO_SANITIZE inline uint64_t control_group_of(pid_t pid) noexcept {
  platform::process_view view;
  uint64_t number = 0;
  char text[1024];
  if (platform::open_process(pid, view) != 0) return 0;
  const int result = platform::view_control_group(view, text, sizeof text, number);
  platform::close_process(view);
  return result == 0 ? number : 0;
}

/// True if a descendant has had the stop_signal that the warden was sent: it was there already, in the same cgroup. A
/// group that a warden has made below that counts as it (view_control_group): who delegates one signals those below.
INSTANCE_GUARD_NO_SANITIZE inline bool was_told_to_stop(const warden_state& warden, const scanned& entry) noexcept {
  if (warden.told_until == 0 || entry.start_time >= warden.told_until) return false;
  const uint64_t group = control_group_of(entry.pid);
  return group != 0 && group == control_group_of(warden.self);
}

}  // namespace instance_guard::detail
