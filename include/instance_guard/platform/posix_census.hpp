// layer 1: what a census asks the system about: POSIX tells nothing of it.
#pragma once

#include <cerrno>
#include <string>
#include <sys/types.h>
#include <vector>

namespace instance_guard::platform {

/// What SIGHUP does to a process: can't be told.
inline int process_hangup(pid_t) noexcept { return -ENOSYS; }

struct directory_id {};
inline directory_id root_directory() noexcept { return {}; }

/// True if absolute paths mean the same to this process as to the caller: who has another root
/// directory can't be told.
inline bool shares_root(pid_t, const directory_id&) noexcept { return true; }

/// Where file systems are mounted that may not answer: not known.
inline std::vector<std::string> slow_mounts() { return {}; }

}  // namespace instance_guard::platform
