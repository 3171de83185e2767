// Every signal that a program and its descendants send, by strace, where that is installed.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <unistd.h>
#include <vector>

#include "process_census.hpp"

namespace support {

struct sent_signal {
  pid_t from = 0;
  pid_t to = 0;         // negative: a process group; 0 if it can't be told
  std::string name = {};  // "SIGTERM"
};

inline bool have_strace() {
  for (const char* path : {"/usr/bin/strace", "/bin/strace", "/usr/local/bin/strace"})
    if (::access(path, X_OK) == 0) return true;
  return false;
}

/// A command line that runs `arguments` under strace and writes the log into `file`.
inline std::vector<std::string> with_signal_log(const std::string& file,
                                                std::vector<std::string> arguments) {
  std::vector<std::string> command = {"strace", "-f", "-q", "-o", file, "-e", "signal=none",
                                      "--decode-fds=pidfd", "-e",
                                      "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

/// What a program and its descendants did.
struct signal_log {
  std::vector<sent_signal> sent = {};  // calls that failed, and signal 0, are left out
  std::vector<pid_t> own = {};         // every thread and process that strace followed

  bool is_own(pid_t pid) const { return std::find(own.begin(), own.end(), pid) != own.end(); }
};

inline signal_log read_signal_log(const std::string& file) {
  signal_log result;
  const std::string text = detail::contents(file);
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    if (end == text.npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const auto from = static_cast<pid_t>(std::strtol(line.c_str(), nullptr, 10));
    if (!result.is_own(from)) result.own.push_back(from);
    // 77 kill(-78, SIGTERM) = 0          77 pidfd_send_signal(5<pid:78>, SIGKILL, NULL, 0) = 0
    const std::size_t open = line.find('('), name = line.find("SIG", open);
    const bool delivered =
        line.find(" = 0") != line.npos || line.find("<unfinished") != line.npos;
    if (open == line.npos || name == line.npos || !delivered) continue;
    const std::size_t handle = line.find("<pid:", open);
    const char* to = line.c_str() + (handle == line.npos ? open + 1 : handle + 5);
    result.sent.push_back({from, static_cast<pid_t>(std::strtol(to, nullptr, 10)),
                           line.substr(name, line.find_first_of(",) ", name) - name)});
  }
  return result;
}

}  // namespace support
