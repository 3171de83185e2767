// layer 1: a point in time that arithmetic can't overflow.
#pragma once

#include <chrono>
#include <cstdint>

#include "../error.hpp"
#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// A moment on CLOCK_MONOTONIC. Async-signal-safe, except for the constructors' callers'
/// own duties. `no_limit` and anything too long to count mean never.
class deadline {
 public:
  static constexpr std::int64_t never = INT64_MAX;

  /// Not set yet.
  deadline() noexcept : at_(-1) {}

  explicit deadline(std::chrono::milliseconds limit) noexcept
      : deadline(nanoseconds(limit), platform::sys::monotonic_now()) {}

  static deadline in_nanoseconds(std::int64_t limit) noexcept { return {limit, platform::sys::monotonic_now()}; }

  /// Nanoseconds of `limit`, saturated; a negative limit is no time at all.
  static constexpr std::int64_t nanoseconds(std::chrono::milliseconds limit) noexcept {
    const std::int64_t count = limit.count();
    if (count <= 0) return 0;
    return count > never / 1'000'000 ? never : count * 1'000'000;
  }

  /// Nanoseconds left, 0 when passed, negative when there is no limit: as ppoll takes it.
  std::int64_t left() const noexcept {
    if (at_ == never) return -1;
    const std::int64_t rest = at_ - platform::sys::monotonic_now();
    return rest > 0 ? rest : 0;
  }

  bool is_set() const noexcept { return at_ >= 0; }
  bool passed() const noexcept { return left() == 0; }

 private:
  deadline(std::int64_t limit, std::int64_t now) noexcept : at_(limit >= never - now ? never : now + limit) {}

  std::int64_t at_;
};

/// `milliseconds` and `more`, or no_limit where that is too long to count.
inline std::chrono::milliseconds longer(std::int64_t milliseconds, std::int64_t more) noexcept {
  const std::int64_t most = no_limit.count();
  return std::chrono::milliseconds(milliseconds > most - more ? most : milliseconds + more);
}

}  // namespace instance_guard::detail
