// layer 3: the warden hears of children that the owner has started by itself (reach::everything).
//
// Each has sent a message before its exec, see direct_start.hpp. Nobody is woken by those: they are read
// when a child has ended, or a signal is for one. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "warden_reap.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// True: the channel is kept. The sender is attested by the kernel: nobody can speak for another.
INSTANCE_GUARD_NO_SANITIZE inline bool adopt(warden_state& warden, pid_t child, uint64_t token, int channel) noexcept {
  if (child <= 0 || (token & wire::own_token) == 0) return false;
  for (uint32_t i = 0; i < warden.unclaimed.size(); ++i) {
    if (warden.unclaimed[i].pid != child) continue;
    tell_end(warden, channel, warden.unclaimed[i].what);
    warden.unclaimed.remove(i);
    return true;
  }
  siginfo_t info = {};
  if (sys::waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0) return false;  // not its child
  return warden.children.push({child, channel, token, false, false});
}

/// Reads all messages. Who has ended by now, and has sent none, was not the owner's own.
INSTANCE_GUARD_NO_SANITIZE inline void take_adoptions(warden_state& warden) noexcept {
  while (warden.adoptions >= 0) {
    wire::adopt_request request;
    wire::received got;
    wire::receive(warden.adoptions, &request, sizeof request, got);
    if (got.size == -ENOMEM || got.size == -ENOBUFS) return;
    if (got.size == 0) close_fd(warden.adoptions);
    if (got.size <= 0) break;
    const bool whole = got.size == static_cast<long>(sizeof request) && request.head.what == wire::kind::adopt;
    const bool kept = whole && got.count != 0 && adopt(warden, got.sender, request.token, got.descriptors[0]);
    for (unsigned i = kept ? 1 : 0; i < got.count; ++i) sys::close(got.descriptors[i]);
  }
  warden.unclaimed.clear();
}

}  // namespace instance_guard::detail
