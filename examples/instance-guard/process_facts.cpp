#include "process_facts.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>

#include "process_text.hpp"

namespace tool {
namespace {

std::vector<pid_t> numbers_in(const std::string& path) {
  std::vector<pid_t> result;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
  if (!directory) return result;
  while (const dirent* each = ::readdir(directory.get())) {
    char* end = nullptr;
    const long number = std::strtol(each->d_name, &end, 10);
    if (end != each->d_name && *end == '\0' && number > 0) result.push_back(static_cast<pid_t>(number));
  }
  return result;
}

/// The text behind "KEY:" at the start of a line.
std::string_view field(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view line = text.substr(at, end - at);
    if (line.size() > key.size() && line.substr(0, key.size()) == key && line[key.size()] == ':') {
      const std::size_t begin = line.find_first_not_of("\t ", key.size() + 1);
      return begin == std::string_view::npos ? std::string_view() : line.substr(begin);
    }
    at = end + 1;
  }
  return {};
}

long number_of(std::string_view text) { return std::strtol(std::string(text.substr(0, 20)).c_str(), nullptr, 10); }

/// Reads a whole file of /proc, which says its length only by its end. False: denied.
bool read_all(const std::string& path, std::string& out) {
  const instance_guard::file_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno != EACCES && errno != EPERM;
  char block[65'536];
  for (ssize_t size = 0; (size = ::read(file.get(), block, sizeof block)) != 0;) {
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return errno != EACCES && errno != EPERM;
    out.append(block, static_cast<std::size_t>(size));
    if (out.size() > std::size_t{64} << 20U) return false;
  }
  return true;
}

/// False while a process executes a program and does not have its memory yet, and once it has given
/// it back at its end: env_end, field 51 of proc_pid_stat(5), is 0 then.
bool has_environment(pid_t pid) {
  const std::string text = contents("/proc/" + std::to_string(pid) + "/stat", 4'096);
  std::size_t at = text.rfind(')');
  for (int field = 3; at != std::string::npos && field <= 51; ++field) {
    at = text.find(' ', at);
    if (at != std::string::npos) ++at;
  }
  return at != std::string::npos && number_of(std::string_view(text).substr(at)) != 0;
}

}  // namespace

bool read_facts(pid_t pid, process_facts& out) {
  const std::string text = contents("/proc/" + std::to_string(pid) + "/status", 65'536);
  const std::string_view users = field(text, "Uid");
  const std::string_view state = field(text, "State");
  if (users.empty() || state.empty()) return false;
  out = {};
  out.pid = pid;
  out.state = state.front();
  out.parent = static_cast<pid_t>(number_of(field(text, "PPid")));
  out.threads = static_cast<int>(number_of(field(text, "Threads")));
  out.is_leader = number_of(field(text, "Tgid")) == pid;
  const char* at = users.data();
  for (uid_t& each : out.users) {
    char* end = nullptr;
    each = static_cast<uid_t>(std::strtoul(at, &end, 10));
    if (end == at) return false;
    at = end;
  }
  return true;
}

environment read_environment(const process_facts& facts) {
  environment result;
  const std::string process = "/proc/" + std::to_string(facts.pid);
  std::string text;
  bool readable = false;
  if (facts.state != 'Z') {
    readable = read_all(process + "/environ", text);
  } else {
    // A leader whose thread has ended shows nothing, and that to root alone, while others live.
    for (const pid_t thread : numbers_in(process + "/task"))
      if (text.empty() && thread != facts.pid)
        readable = read_all(process + "/task/" + std::to_string(thread) + "/environ", text);
  }
  if (!readable) return result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\0', at);
    if (end == std::string::npos) end = text.size();
    result.entries.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  const bool gone = text.empty() && !has_environment(facts.pid);
  result.how = gone ? environment::reading::none_now : environment::reading::known;
  return result;
}

std::string service_of_cgroups(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers != "name=systemd") continue;
    std::string_view path = line.substr(second + 1);
    // The innermost unit: a scope holds what somebody else has started, a service may have
    // groups of its own below it.
    while (!path.empty()) {
      const std::size_t slash = path.rfind('/');
      const std::string_view part = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
      path = path.substr(0, slash == std::string_view::npos ? 0 : slash);
      const auto ends_with = [&](std::string_view what) {
        return part.size() > what.size() && part.substr(part.size() - what.size()) == what;
      };
      if (ends_with(".scope")) break;
      if (ends_with(".service")) return "systemd unit " + std::string(part);
    }
  }
  return {};
}

std::string service_of(pid_t pid) {
  const std::string text = contents("/proc/" + std::to_string(pid) + "/cgroup", 65'536);
  // In doubt it is one.
  if (text.empty() && !contents("/proc/self/cgroup", 65'536).empty()) return "can't be told";
  return service_of_cgroups(text);
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> result = numbers_in("/proc");
  std::sort(result.begin(), result.end(), std::greater<>());
  return result;
}

pid_t last_number() {
  const std::string text = contents("/proc/sys/kernel/ns_last_pid", 64);
  if (!text.empty()) return static_cast<pid_t>(number_of(text));
  const std::string load = contents("/proc/loadavg", 256);
  const std::size_t blank = load.rfind(' ');
  return blank == std::string::npos ? 0 : static_cast<pid_t>(number_of(load.substr(blank + 1)));
}

std::vector<pid_t> own_line() {
  std::vector<pid_t> result;
  process_facts facts;
  for (pid_t at = ::getpid(); at > 0 && result.size() < 1'024; at = facts.parent) {
    result.push_back(at);
    if (!read_facts(at, facts)) break;
  }
  return result;
}

}  // namespace tool
