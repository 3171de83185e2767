// Which processes belong to a test: what no test may leave behind.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace support {

struct found_process {
  pid_t pid = 0;
  std::string what = {};        // "pid 77 (name), state S"
  std::string executable = {};  // its path, empty if it can't be read
};

namespace detail {

inline std::string contents(const std::string& path) {
  std::string text;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return text;
  char block[4096];
  for (ssize_t size = 0; (size = ::read(file, block, sizeof block)) > 0;)
    text.append(block, static_cast<std::size_t>(size));
  ::close(file);
  return text;
}

/// The numbers among a directory's names.
inline std::vector<pid_t> numbers_in(const std::string& path) {
  std::vector<pid_t> result;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return result;
  while (const dirent* each = ::readdir(directory)) {
    const std::string_view name = each->d_name;
    pid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc{} && end == name.data() + name.size()) result.push_back(number);
  }
  ::closedir(directory);
  return result;
}

/// The state letter of a thread, 0 if it is gone.
inline char state_of(const std::string& task) {
  const std::string stat = contents(task + "/stat");
  const std::size_t end = stat.rfind(')');
  return end == stat.npos || end + 2 >= stat.size() ? '\0' : stat[end + 2];
}

inline std::string executable_of(const std::string& task) {
  char path[4096];
  const ssize_t size = ::readlink((task + "/exe").c_str(), path, sizeof path);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : std::string();
}

/// `executable` is what executable_of(task) said: read once, since what ends has none any more.
inline bool thread_mentions(const std::string& task, const std::string& executable, std::string_view token) {
  return executable.find(token) != std::string::npos || contents(task + "/environ").find(token) != std::string::npos ||
         contents(task + "/cmdline").find(token) != std::string::npos;
}

}  // namespace detail

/// The living processes that have `token` in their environment, command line or executable's
/// path. A process whose first thread has ended lives while another one does.
///
/// Which of the three is left depends on what a process did to hide; one that runs a program of
/// its own file (see scene) can't hide that.
inline std::vector<found_process> processes_with(std::string_view token) {
  std::vector<found_process> result;
  for (const pid_t pid : detail::numbers_in("/proc")) {
    if (pid == ::getpid()) continue;
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const pid_t thread : detail::numbers_in(tasks)) {
      const std::string task = tasks + "/" + std::to_string(thread);
      const char state = detail::state_of(task);
      if (state == '\0' || state == 'Z' || state == 'X') continue;
      const std::string executable = detail::executable_of(task);
      if (!detail::thread_mentions(task, executable, token)) continue;
      std::string name = detail::contents(task + "/comm");
      name.erase(std::remove(name.begin(), name.end(), '\n'), name.end());
      result.push_back({pid, "pid " + std::to_string(pid) + " (" + name + "), state " + state, executable});
      break;
    }
  }
  return result;
}

/// Alive: there, and not a zombie.
inline bool alive(pid_t pid) {
  for (const pid_t thread : detail::numbers_in("/proc/" + std::to_string(pid) + "/task")) {
    const char state = detail::state_of("/proc/" + std::to_string(pid) + "/task/" + std::to_string(thread));
    if (state != '\0' && state != 'Z' && state != 'X') return true;
  }
  return false;
}

/// The children of a process, zombies too: of this one, its wardens and what it did not reap.
inline std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> result;
  for (const pid_t pid : detail::numbers_in("/proc")) {
    const std::string stat = detail::contents("/proc/" + std::to_string(pid) + "/stat");
    const std::size_t end = stat.rfind(')');  // "pid (name) state parent ..."
    if (end != stat.npos && end + 4 < stat.size() && std::strtol(stat.c_str() + end + 4, nullptr, 10) == parent)
      result.push_back(pid);
  }
  return result;
}

/// Ends everything that processes_with(token) finds, until it finds nothing, for a while.
inline void end_processes_with(std::string_view token) {
  int empty_rounds = 0;  // what forks and ends all the time can slip through one look
  for (int round = 0; round < 1000; ++round) {
    const auto found = processes_with(token);
    if (found.empty() && ++empty_rounds == 3) return;
    if (!found.empty()) empty_rounds = 0;
    for (const found_process& each : found) {
      const int handle = static_cast<int>(::syscall(SYS_pidfd_open, each.pid, 0));
      if (handle < 0) continue;
      // Looked at again now that the number can't change hands.
      const std::string tasks = "/proc/" + std::to_string(each.pid) + "/task";
      bool same = false;
      for (const pid_t thread : detail::numbers_in(tasks)) {
        const std::string task = tasks + "/" + std::to_string(thread);
        same = same || detail::thread_mentions(task, detail::executable_of(task), token);
      }
      if (same) ::syscall(SYS_pidfd_send_signal, handle, SIGKILL, nullptr, 0);
      ::close(handle);
    }
    ::usleep(1000);
  }
}

}  // namespace support
