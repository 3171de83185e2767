// A process that can meet others through one of the two locks of a name only: for a forked child,
// since it changes the process for good.
#pragma once

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <instance_guard/pid_lockfile_types.hpp>
#include <instance_guard/platform/platform.hpp>
#include <string>

namespace support {

/// The file lock alone: abstract sockets belong to a network namespace.
inline bool own_network() { return ::unshare(CLONE_NEWNET) == 0; }

/// The socket lock alone: a /run and /tmp of its own, empty. What runs from there is to be found
/// through the working directory.
inline bool own_files() {
  return instance_guard::platform::has_socket_lock && ::unshare(CLONE_NEWNS) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/run", "tmpfs", 0, "size=1m") == 0 && ::mount("none", "/tmp", "tmpfs", 0, "size=1m") == 0;
}

/// Whether this machine lets a test do that; says why not.
inline bool possible(const char* what, bool (*prepare)()) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(prepare() ? 0 : 1);
  int status = 1;
  ::waitpid(pid, &status, 0);
  if (status != 0) MESSAGE("skipped: " << std::string(what) << " needs root, namespaces and a socket lock");
  return status == 0;
}

}  // namespace support
