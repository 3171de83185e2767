// A directory of locks in odd surroundings, and the ways to make them odd.
#pragma once

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <instance_guard/pid_lockfile_types.hpp>
#include <string>

#include "other_user.hpp"
#include "temporary_directory.hpp"
#include "unique_name.hpp"

namespace support {

struct odd_place {
  temporary_directory directory = {};
  std::string name = unique_name("odd");
  instance_guard::lock_options options() const {
    instance_guard::lock_options result;
    result.directory = directory.path() / "locks";
    return result;
  }
  std::string locks() const { return options().directory.string(); }
  std::string file() const { return locks() + "/" + name + ".lock"; }
  odd_place() {
    directory.open_to_all();
    std::filesystem::create_directory(locks());
    ::chmod(locks().c_str(), 0700);
  }
};

/// A user that nobody is.
inline const uid_t stranger = 1'000'000'000u + static_cast<uid_t>(::getpid());

/// Runs in a forked child, since it changes the process; 0: as promised, 77: not possible here.
inline int in_child(const std::function<int()>& work) {
  const pid_t pid = ::fork();
  // A sanitizer's _exit would write out what stdio holds, under the limits that are set in there.
  if (pid == 0) ::syscall(SYS_exit_group, work());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline bool root_only(const char* what) {
  if (is_root()) return true;
  MESSAGE("skipped: " << std::string(what) << " needs root");
  return false;
}

inline bool own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// False, and why, where a test can't mount something that only it sees: as a user, or in a chroot that is no mount.
inline bool may_mount() {
  if (!root_only("mounting")) return false;
  if (in_child([] { return own_mounts() ? 0 : 1; }) == 0) return true;
  MESSAGE("skipped: no mounts of one's own here, as in a chroot");
  return false;
}

}  // namespace support
