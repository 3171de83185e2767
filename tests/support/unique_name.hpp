// Names that no other test program uses at the same time: locks are global.
#pragma once

#include <atomic>
#include <string>
#include <unistd.h>

namespace support {

/// "test-PREFIX-PID-N", within what a lock's name may be if the prefix is short.
inline std::string unique_name(const std::string& prefix) {
  static std::atomic<int> counter{0};
  return "test-" + prefix + "-" + std::to_string(::getpid()) + "-" + std::to_string(++counter);
}

}  // namespace support
