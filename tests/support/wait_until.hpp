// Waiting for something that has no descriptor to wait on.
#pragma once

#include <chrono>
#include <thread>

namespace support {

/// Far beyond what anything here takes, also on a machine that is busy with something else.
inline constexpr std::chrono::seconds patience{20};

/// True as soon as `holds()`; false if it still does not when the time has passed.
template <class Predicate>
bool wait_until(Predicate holds, std::chrono::milliseconds limit = patience) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace support
