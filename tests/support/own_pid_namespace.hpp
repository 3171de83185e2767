// A part of a test in a pid namespace of its own: it sees only its own processes, and when it ends
// all of them have.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

namespace support {

inline constexpr int no_namespace = 77;

namespace detail {

inline void write_file(const char* path, const std::string& text) { std::ofstream(path) << text; }

/// Process 1: reaps whatever it adopts, or the part alone, and ends with the part, whose exit code it has.
template <class Part>
[[noreturn]] void be_init(Part part, bool reaps) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("proc", "/proc", "proc", 0, nullptr) != 0)
    ::_exit(no_namespace);
  const pid_t worker = ::fork();
  if (worker == 0) {
    int code = 99;
    try {
      code = part();
    } catch (const std::exception& fault) {
      std::fprintf(stderr, "in a namespace: %s\n", fault.what());
    }
    ::_exit(code);
  }
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(reaps ? -1 : worker, &status, 0);
    if (ended == worker) ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 98);
    if (ended < 0) ::_exit(97);
  }
}

}  // namespace detail

/// Runs `part()` and returns what it returns; no_namespace (77) where there can be none. As an
/// ordinary user it is root of a user namespace. Without `reaps` its process 1 leaves zombies.
template <class Part>
int in_own_pid_namespace(Part part, bool reaps = true) {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  const pid_t outside = ::fork();
  if (outside == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::unshare(CLONE_NEWPID | CLONE_NEWNS | (user == 0 ? 0 : CLONE_NEWUSER)) != 0) ::_exit(no_namespace);
    if (user != 0) {
      detail::write_file("/proc/self/setgroups", "deny");
      detail::write_file("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
      detail::write_file("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
    }
    const pid_t init = ::fork();
    if (init == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      detail::be_init(part, reaps);
    }
    int status = 0;
    ::waitpid(init, &status, 0);
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 96);
  }
  int status = 0;
  ::waitpid(outside, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 95;
}

}  // namespace support
