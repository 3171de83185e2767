// layer 1: all processes of this host, which POSIX does not list: -ENOSYS throughout.
//
// The names of linux_table.hpp.
#pragma once

#include "posix_calls.hpp"
#include "posix_inspect.hpp"
#include "posix_proc.hpp"

namespace instance_guard::platform {

inline int open_process_list(const char*) noexcept { return -ENOSYS; }
inline int for_each_process_in(int, void*, size_t, bool (*)(pid_t, void*), void*) noexcept { return -ENOSYS; }
inline int read_listed_process(int, pid_t, process_stat&, uid_t&) noexcept { return -ENOSYS; }
inline int open_listed_process(int, pid_t, process_view&) noexcept { return -ENOSYS; }
inline int open_view_file(const process_view&, const char*) noexcept { return -ENOSYS; }
inline long read_view_link(const process_view&, const char*, char*, size_t) noexcept { return -ENOSYS; }
inline int stat_view_link(const process_view&, const char*, struct stat&) noexcept { return -ENOSYS; }
inline int64_t process_clock_zero() noexcept { return 0; }
inline constexpr int64_t process_clock_tick = 10'000'000;
inline uint64_t page_bytes() noexcept { return 4096; }
inline bool list_hides_processes(int) noexcept { return false; }

}  // namespace instance_guard::platform
