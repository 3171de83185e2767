// layer 2: when a child was started, for who has just started it. Async-signal-safe.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// When a child that was started after `began` (process_clock_now) was started, as its process_stat
/// says. The kernel takes it from the same clock, in steps of 10 ms; the file costs 25 us, so it is read
/// only when a step may lie between. Nobody may have reaped the child yet. 0: it can't be told.
INSTANCE_GUARD_NO_SANITIZE inline uint64_t start_time_of(pid_t child, uint64_t began) noexcept {
  if (platform::children_may_share_memory && platform::process_clock_now() == began) return began;
  platform::process_stat facts;
  return platform::read_process_stat(child, facts) == 0 ? facts.start_time : 0;
}

}  // namespace instance_guard::detail
