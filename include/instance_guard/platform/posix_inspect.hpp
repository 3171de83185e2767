// layer 1: looking into other processes, which POSIX does not offer: -ENOSYS throughout.
//
// The names of linux_inspect.hpp. Callers that look for strays find none, and say that they could
// not look. Async-signal-safe.
#pragma once

#include "posix_calls.hpp"
#include "posix_proc.hpp"

namespace instance_guard::platform {

inline constexpr bool can_inspect_processes = false;

struct process_view {
  pid_t pid = 0;
  int directory = -1;
  pid_t thread = 0;
};

struct mapped_file {
  uint64_t device = 0;
  uint64_t inode = 0;
  const char* path = nullptr;
  size_t path_size = 0;
};

INSTANCE_GUARD_NO_SANITIZE inline int open_process(pid_t, process_view&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline void close_process(process_view&) noexcept {}
INSTANCE_GUARD_NO_SANITIZE inline int user_of_process(pid_t, uid_t&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int view_user(const process_view&, uid_t&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int view_stat(const process_view&, process_stat&, bool* = nullptr) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_stat_and_image(const process_view&, process_stat&, uint64_t&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_living_thread(process_view&, char*, size_t, uint64_t&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline bool view_is_process(const process_view&) noexcept { return false; }
INSTANCE_GUARD_NO_SANITIZE inline int view_pid_namespace(const process_view&, uint64_t&) noexcept { return -ENOSYS; }
INSTANCE_GUARD_NO_SANITIZE inline int view_program(const process_view&, uint64_t&, uint64_t&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_control_group(const process_view&, char*, size_t, uint64_t&) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_environment(const process_view&, char*, size_t,
                                                       bool (*)(const char*, size_t, void*), void*) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_mapped_files(const process_view&, char*, size_t,
                                                        bool (*)(const mapped_file&, void*), void*) noexcept {
  return -ENOSYS;
}
INSTANCE_GUARD_NO_SANITIZE inline int view_signal(const process_view&, int) noexcept { return -ENOSYS; }

/// A clock of its own, since process_stat::start_time is always 0 here.
INSTANCE_GUARD_NO_SANITIZE inline uint64_t process_clock_now() noexcept {
  return static_cast<uint64_t>(sys::monotonic_now() / 10'000'000);
}
INSTANCE_GUARD_NO_SANITIZE inline pid_t last_process_id() noexcept { return 0; }
INSTANCE_GUARD_NO_SANITIZE inline int process_list_is_ours() noexcept { return -ENOSYS; }

}  // namespace instance_guard::platform
