// Every signal that a program and its descendants send, by strace, where that is installed.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "process_census.hpp"

namespace support {

struct sent_signal {
  pid_t from = 0;
  pid_t to = 0;           // negative: a process group; 0 if it can't be told
  std::string name = {};  // "SIGTERM"
};

inline bool have_strace() {
  for (const char* path : {"/usr/bin/strace", "/bin/strace", "/usr/local/bin/strace"})
    if (::access(path, X_OK) == 0) return true;
  return false;
}

/// A command line that runs `arguments` under strace and writes the log into `file`.
inline std::vector<std::string> with_signal_log(const std::string& file, std::vector<std::string> arguments) {
  std::vector<std::string> command = {"strace",
                                      "-f",
                                      "-q",
                                      "-o",
                                      file,
                                      "-e",
                                      "signal=none",
                                      "--decode-fds=path,pidfd",
                                      "-e",
                                      "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo,rt_tgsigqueueinfo,"
                                      "?fork,?vfork,clone,clone3"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

/// What a program and its descendants did.
struct signal_log {
  std::vector<sent_signal> sent = {};  // calls that failed, and signal 0, are left out
  std::vector<pid_t> own = {};         // the program, and every process and thread below it

  bool is_own(pid_t pid) const { return std::find(own.begin(), own.end(), pid) != own.end(); }
};

namespace detail {

inline pid_t number_at(const std::string& line, std::size_t at) {
  return static_cast<pid_t>(std::strtol(line.c_str() + at, nullptr, 10));
}

/// The receiver of: kill(-78, SIGTERM), pidfd_send_signal(5<pid:78>, SIGKILL, NULL, 0), and the
/// same with 5</proc/78>, since a directory of /proc can stand for a pidfd.
inline pid_t receiver(const std::string& line, std::size_t arguments) {
  for (const std::string_view mark : {"<pid:", "</proc/"}) {
    const std::size_t found = line.find(mark, arguments);
    if (found != line.npos) return number_at(line, found + mark.size());
  }
  return line.find("pidfd_send_signal") == line.npos ? number_at(line, arguments) : 0;
}

}  // namespace detail

inline signal_log read_signal_log(const std::string& file) {
  signal_log result;
  const auto add = [&](pid_t pid) {
    if (pid > 0 && !result.is_own(pid)) result.own.push_back(pid);
  };
  const std::string text = detail::contents(file);
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    if (end == text.npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const pid_t from = detail::number_at(line, 0);
    add(from);
    const std::size_t open = line.find('('), name = line.find("SIG", open), is = line.rfind(" = ");
    if (line.find("fork") != line.npos || line.find("clone") != line.npos) {
      if (is != line.npos) add(detail::number_at(line, is + 3));
      continue;
    }
    const bool delivered = line.find(" = 0") != line.npos || line.find("<unfinished") != line.npos;
    if (open == line.npos || name == line.npos || !delivered) continue;
    result.sent.push_back(
        {from, detail::receiver(line, open + 1), line.substr(name, line.find_first_of(",) ", name) - name)});
  }
  return result;
}

}  // namespace support
