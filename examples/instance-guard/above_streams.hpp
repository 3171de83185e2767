// Where stdin, stdout or stderr is closed, a new descriptor of the tool's would be that of the command.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace tool {

/// The same file under a number above stderr's, closed on exec. -1 with errno; -1 stays -1.
inline int above_streams(int descriptor) noexcept {
  if (descriptor < 0 || descriptor > STDERR_FILENO) return descriptor;
  const int moved = ::fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int why = errno;
  ::close(descriptor);
  errno = why;
  return moved;
}

}  // namespace tool
