// layer 1: a file descriptor that is closed when its owner goes.
//
// Like std::unique_ptr for an int. Not thread-safe by itself: one object, one thread at a time.
// fork(2) copies the descriptor, not this object's duty: a forked child that returns through
// its destructors closes its own copy, never its parent's.
#pragma once

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace instance_guard {

/// Owns one file descriptor, or none (-1). Move-only.
class [[nodiscard]] file_descriptor {
 public:
  file_descriptor() noexcept = default;
  /// Takes over `descriptor`; any negative number means none.
  explicit file_descriptor(int descriptor) noexcept : descriptor_(descriptor < 0 ? -1 : descriptor) {}
  file_descriptor(file_descriptor&& other) noexcept : descriptor_(other.release()) {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~file_descriptor() { reset(); }

  int get() const noexcept { return descriptor_; }
  explicit operator bool() const noexcept { return descriptor_ >= 0; }

  /// Gives the descriptor away; the caller closes it.
  [[nodiscard]] int release() noexcept { return std::exchange(descriptor_, -1); }

  /// Closes what it has and takes over `descriptor`. errno is left alone.
  ///
  /// close(2) is never repeated, whatever it answers: on Linux the number is free even after
  /// EINTR, and by then another thread may have got it for a file of its own.
  void reset(int descriptor = -1) noexcept {
    const int old = std::exchange(descriptor_, descriptor < 0 ? -1 : descriptor);
    if (old < 0) return;
    const int saved = errno;
    ::close(old);
    errno = saved;
  }

  friend void swap(file_descriptor& a, file_descriptor& b) noexcept { std::swap(a.descriptor_, b.descriptor_); }

 private:
  int descriptor_ = -1;
};

/// A second descriptor for the same open file, closed on exec, never 0, 1 or 2: those belong to
/// the standard streams, even where a program was started without them.
///
/// `ec`: bad_file_descriptor, too_many_files_open. See fcntl(2), F_DUPFD_CLOEXEC.
inline file_descriptor duplicate(int descriptor, std::error_code& ec) noexcept {
  ec.clear();
  file_descriptor copy(::fcntl(descriptor, F_DUPFD_CLOEXEC, 3));
  if (!copy) ec.assign(errno, std::generic_category());
  return copy;
}

}  // namespace instance_guard
