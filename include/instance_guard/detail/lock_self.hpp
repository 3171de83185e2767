// layer 3: what this process writes about itself into a lock's record.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "lock_fault.hpp"
#include "lock_origin.hpp"

namespace instance_guard::detail {

/// The command line of a process, split; empty when it can't be read.
inline std::vector<std::string> arguments_of(pid_t pid) {
  std::vector<std::string> result;
  const std::string text = read_origin_file(pid, "cmdline");
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\0', at);
    if (end == std::string::npos) end = text.size();
    result.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return result;
}

inline std::string link_target(pid_t pid, const char* leaf) {
  char path[64];
  char target[4096];
  const long size = platform::sys::readlinkat(AT_FDCWD, platform::proc_path(path, pid, leaf), target, sizeof target);
  return size > 0 ? std::string(target, static_cast<std::size_t>(size)) : std::string();
}

/// What can be seen of any process from outside.
inline lock_record describe_process(pid_t pid) {
  lock_record record;
  std::error_code ec;
  record.process = process_identity::of(pid, ec);
  if (ec) record.process.pid = pid;
  record.executable = link_target(pid, "exe");
  record.working_directory = link_target(pid, "cwd");
  record.arguments = arguments_of(pid);
  record.started_from = started_from(pid);
  char path[64];
  struct stat facts = {};
  if (::stat(platform::proc_path(path, pid, "exe"), &facts) == 0) {
    record.executable_device = static_cast<std::uint64_t>(facts.st_dev);
    record.executable_inode = static_cast<std::uint64_t>(facts.st_ino);
  }
  if (::stat(platform::proc_path(path, pid, "cmdline"), &facts) == 0) {
    record.uid = facts.st_uid;
    record.user = user_name(facts.st_uid);
  }
  return record;
}

/// Makes a record of a process that runs a command for somebody the command's.
inline void describe_command(const std::vector<std::string>& arguments, lock_record& record) {
  record.arguments = std::vector<std::string>(arguments);
  record.executable = arguments.front();
  const char* search = arguments.front().find('/') == std::string::npos ? std::getenv("PATH") : nullptr;
  for (std::string_view rest = search != nullptr ? search : ""; !rest.empty();) {
    const std::size_t end = rest.find(':');
    const std::filesystem::path file = std::filesystem::path(rest.substr(0, end)) / arguments.front();
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (::access(file.c_str(), X_OK) != 0) continue;
    record.executable = file.string();
    break;
  }
  // As the kernel names it for a process: absolute, links followed.
  std::error_code ignored;
  const std::filesystem::path whole = std::filesystem::canonical(record.executable, ignored);
  if (!ignored) record.executable = whole.string();
  struct stat facts = {};
  record.executable_device = record.executable_inode = 0;
  if (::stat(record.executable.c_str(), &facts) != 0) return;
  record.executable_device = static_cast<std::uint64_t>(facts.st_dev);
  record.executable_inode = static_cast<std::uint64_t>(facts.st_ino);
}

/// A record of this process, without name, version and time. What can't change is looked up once.
/// The gate of lock_fork.hpp guards what is remembered: hold it.
inline lock_record describe_self() {
  struct known {
    pid_t pid = 0;
    uid_t uid = 0;
    lock_record record;
  };
  static known cache;
  const pid_t self = platform::sys::getpid();
  const uid_t uid = platform::sys::geteuid();
  if (cache.pid != self || cache.uid != uid) {
    cache.record = describe_process(self);
    cache.record.process = process_identity::self();
    cache.record.uid = uid;
    cache.record.user = user_name(uid);
    char host[256] = {};
    if (::gethostname(host, sizeof host - 1) == 0) cache.record.host.assign(host, std::strlen(host));
    cache.pid = self;
    cache.uid = uid;
  }
  lock_record record = cache.record;
  std::error_code ec;
  record.working_directory = std::filesystem::current_path(ec);
  return record;
}

}  // namespace instance_guard::detail
