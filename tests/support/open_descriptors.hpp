// How many descriptors this process has open: a leak shows as a difference.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

namespace support {

inline int open_descriptors() {
  if (DIR* directory = ::opendir("/proc/self/fd")) {
    int count = -3;  // ".", ".." and the directory itself
    while (::readdir(directory) != nullptr) ++count;
    ::closedir(directory);
    return count;
  }
  int count = 0;
  for (int descriptor = 0; descriptor < 65'536; ++descriptor)
    if (::fcntl(descriptor, F_GETFD) >= 0) ++count;
  return count;
}

}  // namespace support
