// How often a long test repeats: in full for a release, less in between.
#pragma once

#include <cstdlib>
#include <cstring>

namespace support {

inline int rounds(int full, int quick) {
  const char* wanted = std::getenv("INSTANCE_GUARD_STRESS");
  return wanted != nullptr && std::strcmp(wanted, "full") == 0 ? full : quick;
}

}  // namespace support
