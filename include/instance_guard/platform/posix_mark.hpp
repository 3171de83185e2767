// layer 1: the names of linux_mark.hpp, as far as POSIX goes: random bytes, and nothing else.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

/// Fills `out` from /dev/urandom, which POSIX does not promise but every system has.
INSTANCE_GUARD_NO_SANITIZE inline int random_bytes(void* out, size_t size) noexcept {
  const int file = sys::open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  if (file < 0) return file;
  const long got = sys::read(file, out, size);
  sys::close(file);
  return got == static_cast<long>(size) ? 0 : -EIO;
}

struct mark_page {
  void* address = nullptr;
  uint64_t device = 0;
  uint64_t inode = 0;
};

INSTANCE_GUARD_NO_SANITIZE inline int make_mark_page(const char*, mark_page&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline void drop_mark_page(mark_page&) noexcept {}

/// The number of threads can't be asked: when in doubt, others are running.
INSTANCE_GUARD_NO_SANITIZE inline bool has_one_thread() noexcept { return false; }

INSTANCE_GUARD_NO_SANITIZE inline pid_t find_adopter(int64_t, bool) noexcept { return -ENOSYS; }

}  // namespace instance_guard::platform
