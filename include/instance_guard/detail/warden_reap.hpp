// layer 3: the warden takes note of children that have ended, and tells their owner.
#pragma once

#include "../platform/platform.hpp"
#include "warden_spawn.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Sends an exit status; when its receiver has no room, it is kept for later. Takes the channel.
INSTANCE_GUARD_NO_SANITIZE inline void tell_end(warden_state& warden, int channel, const wire::ended& what) noexcept {
  const long result = wire::send(channel, &what, sizeof what);
  const bool later = result == -EAGAIN || result == -ENOMEM || result == -ENOBUFS;
  if (!later || !warden.unsent.push({channel, what})) sys::close(channel);
}

INSTANCE_GUARD_NO_SANITIZE inline void retry_unsent(warden_state& warden) noexcept {
  for (uint32_t i = 0; i < warden.unsent.size();) {
    const warden_unsent each = warden.unsent[i];
    const long result = wire::send(each.channel, &each.what, sizeof each.what);
    if (result == -EAGAIN || result == -ENOMEM || result == -ENOBUFS) {
      ++i;
      continue;
    }
    sys::close(each.channel);
    warden.unsent.remove(i);
  }
}

/// Where orphans are not adopted, what a child leaves in its process group ends with it: once it
/// is reaped, the number of its group may become a stranger's. The child, or 0: any.
INSTANCE_GUARD_NO_SANITIZE inline pid_t end_group_of_next(const warden_state& warden) noexcept {
  siginfo_t info = {};
  if (sys::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) return 0;
  for (const warden_child& each : warden.children)
    if (each.pid == info.si_pid && !each.outlives) sys::kill(-each.pid, SIGKILL);
  return info.si_pid;
}

/// Reaps whoever has ended, until the kernel has no more to tell.
INSTANCE_GUARD_NO_SANITIZE inline void reap(warden_state& warden) noexcept {
  for (;;) {
    siginfo_t info = {};
    rusage usage = {};
    pid_t next = 0;
    if constexpr (!platform::can_adopt_orphans) next = end_group_of_next(warden);
    const int result = sys::waitid(next > 0 ? P_PID : P_ALL, next, &info, WEXITED | WNOHANG | __WALL, &usage);
    if (result == -EINTR) continue;
    if (result < 0) {  // ECHILD: nobody is left, and as their reaper this one would know
      warden.anybody = false;
      return;
    }
    if (info.si_pid == 0) {
      warden.anybody = true;
      return;
    }
    warden.changed = warden.reaped = true;
    if (info.si_pid == warden.program) {
      warden.program = 0;
      warden.program_code = info.si_code;
      warden.program_status = info.si_status;
      warden.owner_gone = warden.owner_closed = true;
      // Until now it could start others. What another program has started, that it executed, is none of the group's.
      if (warden.replaced == 0) warden.end_began = warden.strays_done = false;
    }
    wire::ended what;
    what.code = info.si_code;
    what.status = info.si_status;
    what.usage = usage;
    bool known = false;
    for (uint32_t i = 0; i < warden.children.size() && !known; ++i) {
      if (warden.children[i].pid != info.si_pid) continue;
      const int channel = warden.children[i].channel;
      warden.children.remove(i);
      if (channel >= 0) tell_end(warden, channel, what);
      known = true;
    }
    // One that the owner has started by itself may have said so in a message that is not read yet.
    if (!known && warden.adoptions >= 0) warden.unclaimed.push({info.si_pid, what});
    for (uint32_t i = 0; i < warden.nested.size(); ++i) {
      if (warden.nested[i].pid != info.si_pid) continue;
      sys::close(warden.nested[i].lifeline);
      warden.nested.remove(i);
      break;
    }
  }
}

}  // namespace instance_guard::detail
