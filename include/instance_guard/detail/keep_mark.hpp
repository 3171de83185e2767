// layer 3: INSTANCE_GUARD_KEEP=1 in the environment that a process was started with: it is to be left alone.
//
// Async-signal-safe. Not for a process in uninterruptible sleep: the read would wait for its memory lock.
#pragma once

#include "../platform/platform.hpp"

namespace instance_guard::detail {

inline constexpr char keep_mark[] = "INSTANCE_GUARD_KEEP=1";

enum class keep_answer { no, yes, unknown };  ///< unknown: its environment may not be read, or it has ended

INSTANCE_GUARD_NO_SANITIZE inline keep_answer keep_mark_of(pid_t pid) noexcept {
  using namespace platform;
  char path[64];
  const int file = sys::open(proc_path(path, pid, "environ"), O_RDONLY | O_CLOEXEC);
  if (file < 0) return keep_answer::unknown;
  char text[4096];
  size_t matched = 0;  // bytes of the mark that the current variable has agreed with
  bool agrees = true, found = false;
  long got = 0;
  while (!found && ((got = sys::read(file, text, sizeof text)) > 0 || got == -EINTR)) {
    for (long i = 0; i < got && !found; ++i) {
      if (text[i] == '\0') {
        found = agrees && matched == sizeof keep_mark - 1;
        matched = 0;
        agrees = true;
      } else {
        agrees = agrees && matched < sizeof keep_mark - 1 && text[i] == keep_mark[matched];
        ++matched;
      }
    }
  }
  sys::close(file);
  return found ? keep_answer::yes : got < 0 ? keep_answer::unknown : keep_answer::no;
}

INSTANCE_GUARD_NO_SANITIZE inline bool has_keep_mark(pid_t pid) noexcept {
  return keep_mark_of(pid) == keep_answer::yes;
}

}  // namespace instance_guard::detail
