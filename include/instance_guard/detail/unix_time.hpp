// layer 1: points of the system clock as numbers.
//
// By hand: std::chrono::duration_cast takes a compiler longer than the rest of such a file, and a
// number that anybody may have written must not overflow the clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace instance_guard::detail {

inline constexpr std::int64_t ticks_per_millisecond = std::chrono::system_clock::period::den / 1000;
static_assert(std::chrono::system_clock::period::num == 1 && ticks_per_millisecond > 0);

/// Since 1970, rounded down to whole milliseconds (from 0 on).
inline std::int64_t unix_milliseconds(std::chrono::system_clock::time_point at) noexcept {
  return static_cast<std::int64_t>(at.time_since_epoch().count()) / ticks_per_millisecond;
}

/// The other way; what the clock can't count (libstdc++: after 2262) is the last that it can.
inline std::chrono::system_clock::time_point from_unix_milliseconds(std::int64_t count) noexcept {
  using clock = std::chrono::system_clock;
  constexpr std::int64_t most = INT64_MAX / ticks_per_millisecond;
  if (count > most) count = most;
  if (count < -most) count = -most;
  return clock::time_point(clock::duration(count * ticks_per_millisecond));
}

}  // namespace instance_guard::detail
