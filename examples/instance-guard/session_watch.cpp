#include "session_watch.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include "above_streams.hpp"
#include "process_facts.hpp"

namespace tool {
namespace {

/// A descriptor of a process, readable once it has ended; none where the system has no such thing.
instance_guard::file_descriptor watch(pid_t pid) {
#ifdef SYS_pidfd_open
  return instance_guard::file_descriptor(above_streams(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))));
#else
  return instance_guard::file_descriptor(pid > 0 ? -1 : -1);
#endif
}

bool is_ssh_server(pid_t pid) {
  char name[32] = {};
  std::FILE* file = std::fopen(("/proc/" + std::to_string(pid) + "/comm").c_str(), "re");
  if (file == nullptr) return false;
  const bool read = std::fgets(name, sizeof name, file) != nullptr;
  std::fclose(file);
  return read && std::strncmp(name, "sshd", 4) == 0;
}

}  // namespace

session_watch::session_watch(bool has_terminal) {
  const pid_t leader = ::getsid(0);
  if (leader <= 1) return;
  if (has_terminal && leader != ::getpid()) leader_ = watch(leader);
  // sshd says so in the environment; the process is only looked for if it does.
  if (std::getenv("SSH_CONNECTION") == nullptr) return;
  process_facts facts;
  if (!read_facts(leader, facts) || facts.parent <= 1 || !is_ssh_server(facts.parent)) return;
  server_ = watch(facts.parent);
  // Its number is its own only if it still is the parent.
  if (!read_facts(leader, facts) || !is_ssh_server(facts.parent)) server_.reset();
}

}  // namespace tool
