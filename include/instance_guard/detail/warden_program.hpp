// layer 3: a warden whose owner is its child (reach::everything).
//
// Who started the program knows the warden's pid: it passes on what is sent there, stops and goes
// on with the program, and ends as the program did. What the terminal sends reaches both of them,
// since they are in one process group, and is not passed on. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "warden_kill.hpp"
#include "warden_state.hpp"
#include "warden_told.hpp"

namespace instance_guard::detail {

/// Tells the owner which of the children in its own process group have stopped.
INSTANCE_GUARD_NO_SANITIZE inline void tell_stops(const warden_state& warden) noexcept {
  for (const warden_child& each : warden.children) {
    if (!each.shares_group || each.channel < 0) continue;
    wire::ended what;
    what.head.what = wire::kind::stopped;
    what.status = platform::has_stopped(each.pid);
    if (what.status > 0) wire::send(each.channel, &what, sizeof what);
  }
}

/// The owner's session has lost its leader. The kernel tells a stopped process group that nobody of
/// its session can continue any more, but this warden is of the session, and won't.
INSTANCE_GUARD_NO_SANITIZE inline void wake_stopped_owner(warden_state& warden) noexcept {
  close_fd(warden.session_leader);
  platform::process_stat facts;
  const bool known = platform::read_process_stat(warden.owner, facts) == 0 && facts.start_time == warden.owner_start;
  if (!known || facts.state != 'T' || warden.owner_process < 0) return;
  sys::pidfd_send_signal(warden.owner_process, SIGHUP);
  sys::pidfd_send_signal(warden.owner_process, SIGCONT);
}

/// True if the kernel sends this signal to the warden alone, as the leader of a session whose terminal has hung up;
/// what it sends otherwise, the program has been sent as well.
INSTANCE_GUARD_NO_SANITIZE inline bool is_told_to_leader(const warden_state& warden, int number) noexcept {
  platform::process_stat facts;
  return (number == SIGHUP || number == SIGCONT) && platform::read_process_stat(warden.self, facts) == 0 &&
         facts.session == warden.self;
}

/// Takes the signals that have arrived.
INSTANCE_GUARD_NO_SANITIZE inline void hear_signals(warden_state& warden) noexcept {
  platform::taken_signal taken;
  if (warden.keep_session) {
    while (platform::take_signal_from(warden.signals, taken)) note_heard(warden, taken);
    return;
  }
  if (!warden.has_program) return platform::drain_signals(warden.signals);
  while (platform::take_signal_from(warden.signals, taken)) {
    const bool asks_to_end = taken.number == SIGTERM || taken.number == SIGINT || taken.number == SIGQUIT;
    if (taken.number == SIGCHLD) {
      // A terminal stops the program and lets both go on with one SIGCONT, and so does a shell. Who
      // sends SIGSTOP to the program alone lets it alone go on.
      const int stopped = warden.program > 0 ? platform::has_stopped(warden.program) : 0;
      if (stopped == SIGTSTP || stopped == SIGTTIN || stopped == SIGTTOU) sys::kill(warden.self, SIGSTOP);
    } else if (warden.program > 0) {
      if (!taken.from_kernel || is_told_to_leader(warden, taken.number)) sys::kill(warden.program, taken.number);
    } else if (asks_to_end && warden.phase != ending::none && sys::monotonic_now() - warden.phase_began > again_after) {
      begin_ending(warden, 0);  // the program is gone; whoever still asks wants no more grace
    }
  }
}

/// Ends with the status of the program, so that whoever waits sees no difference.
[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void end_like_program(const warden_state& warden) noexcept {
  if (warden.program_code == CLD_EXITED) sys::exit_group(warden.program_status);
  // The program has dumped its core; this is a different memory.
  const rlimit no_core = {};
  sys::prlimit(0, RLIMIT_CORE, &no_core, nullptr);
  platform::set_disposition(warden.program_status, false);
  sys::kill(warden.self, warden.program_status);
  sys::set_signal_mask(0);
  sys::exit_group(128 + warden.program_status);
}

/// When it could not become a warden: the program has been told, and decides.
[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void wait_for_program(warden_state& warden) noexcept {
  siginfo_t info = {};
  while (sys::waitid(P_PID, warden.program, &info, WEXITED | __WALL) == -EINTR) {
  }
  warden.program_code = info.si_code;
  warden.program_status = info.si_status;
  end_like_program(warden);
}

}  // namespace instance_guard::detail
