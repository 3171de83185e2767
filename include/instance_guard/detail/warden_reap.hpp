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

/// Reaps whoever has ended, until the kernel has no more to tell.
INSTANCE_GUARD_NO_SANITIZE inline void reap(warden_state& warden) noexcept {
  for (;;) {
    siginfo_t info = {};
    rusage usage = {};
    const int result = sys::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL, &usage);
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
    // One that dies before its exec returned has still to be answered for.
    for (uint32_t i = 0; i < warden.starting.size(); ++i)
      if (warden.starting[i]->child == info.si_pid) check_starting(warden);
    for (uint32_t i = 0; i < warden.children.size(); ++i) {
      if (warden.children[i].pid != info.si_pid) continue;
      const int channel = warden.children[i].channel;
      warden.children.remove(i);
      wire::ended what;
      what.code = info.si_code;
      what.status = info.si_status;
      what.usage = usage;
      if (channel >= 0) tell_end(warden, channel, what);
      break;
    }
    for (uint32_t i = 0; i < warden.nested.size(); ++i) {
      if (warden.nested[i].pid != info.si_pid) continue;
      sys::close(warden.nested[i].lifeline);
      warden.nested.remove(i);
      break;
    }
  }
}

}  // namespace instance_guard::detail
