// Whether a process waits for something to happen, told from outside.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace support {

namespace detail {

/// The state of its first thread and how often that has given the processor away, as the kernel shows them; empty
/// unless it sleeps.
inline std::string sleep_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string result;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("State:") && line.find("S (sleeping)") == std::string::npos) return {};
    if (line.find("ctxt_switches:") != std::string::npos) result += line;
  }
  return result;
}

}  // namespace detail

/// True if its first thread has slept for that long in one piece. One that has been woken and waits for a busy
/// processor does not sleep. So it waits for an event, or for a time that is longer.
inline bool has_slept(pid_t pid, std::chrono::milliseconds time) {
  const std::string before = detail::sleep_of(pid);
  if (before.empty()) return false;
  std::this_thread::sleep_for(time);
  return detail::sleep_of(pid) == before;
}

}  // namespace support
