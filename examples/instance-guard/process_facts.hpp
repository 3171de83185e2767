// One process, as far as `reap` has to know it before it may end it.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include <instance_guard/process_identity.hpp>

namespace tool {

/// What /proc/<pid>/status says.
struct process_facts {
  pid_t pid = 0;
  pid_t parent = 0;
  char state = '?';
  int threads = 0;
  uid_t users[4] = {};     ///< real, effective, saved, file system
  bool is_leader = false;  ///< not just a thread

  bool ended() const { return state == 'X' || (state == 'Z' && threads <= 1); }
  bool belongs_to(uid_t user) const {
    return users[0] == user && users[1] == user && users[2] == user && users[3] == user;
  }
};

/// False: there is no such process, or it can't be read.
bool read_facts(pid_t pid, process_facts& out);

/// The environment that it was started with, as it keeps it now.
struct environment {
  enum class reading { known, none_now, denied };
  reading how = reading::denied;  ///< none_now: it is executing a program, or ending
  std::vector<std::string> entries = {};
};
environment read_environment(const process_facts& facts);

/// "systemd unit shiva.service" of the text of /proc/<pid>/cgroup; empty: no service.
std::string service_of_cgroups(std::string_view text);
std::string service_of(pid_t pid);

/// All processes, newest number first; then call newer_than() until it gives none.
std::vector<pid_t> all_processes();

/// The number that was given out last; 0: not known.
pid_t last_number();

/// The caller, and all above it.
std::vector<pid_t> own_line();

}  // namespace tool
