// layer 3: where a process was started from, in words: "systemd unit shiva.service",
// "ssh, terminal /dev/pts/3", "tmux", "cron", "CI runner unit jenkins.service", "container", ... or
// "unknown".
//
// By cgroup, parents and controlling terminal, as the kernel tells them; not by environment
// variables, which travel to processes that were started from elsewhere.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "../platform/platform.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// A unit through which a CI runner starts jobs: what a job starts is in its cgroup, and is not
/// started again with it.
inline bool is_runner_unit(std::string_view unit) noexcept {
  constexpr std::string_view begin = "actions.runner.";
  if (same(unit.substr(0, begin.size()), begin)) return true;
  const std::string_view name = unit.substr(0, unit.find_first_of("@."));
  for (const char* each : {"jenkins", "jenkins-agent", "gitlab-runner", "github-runner", "gitea-runner",
                           "forgejo-runner", "buildkite-agent"})
    if (same(name, each)) return true;
  return false;
}

/// The service that a cgroup path belongs to, as systemd names it; empty: none, or one that people
/// and timers come in through. A service may have cgroups of its own below it; a scope has not: it
/// holds what somebody else started. "CI runner unit NAME", "CI runner user unit NAME" for a job's.
inline std::string unit_of_cgroup(std::string_view path) {
  const auto ends_with = [](std::string_view text, std::string_view end) {
    return text.size() > end.size() && same(text.substr(text.size() - end.size()), end);
  };
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t slash = rest.rfind('/');
    const std::string_view part = slash == std::string_view::npos ? rest : rest.substr(slash + 1);
    rest = rest.substr(0, slash == std::string_view::npos ? 0 : slash);
    if (ends_with(part, ".scope")) return {};
    if (!ends_with(part, ".service")) continue;
    std::string_view name = part.substr(0, part.find_first_of("@."));
    for (const char* entry : {"ssh", "sshd", "cron", "crond", "cronie", "atd", "getty", "serial-getty", "user"})
      if (same(name, entry)) return {};
    const bool users = rest.find("/user@") != std::string_view::npos;
    return joined({is_runner_unit(part) ? "CI runner " : "systemd ", users ? "user unit " : "unit ", part});
  }
  return {};
}

/// What the text of /proc/<pid>/cgroup says: a unit, a runner, "container", or nothing.
inline std::string origin_of_cgroups(std::string_view text) {
  bool container = false;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (controllers.empty() || same(controllers, "name=systemd")) {
      const std::string unit = unit_of_cgroup(path);
      if (!unit.empty()) return unit;
    }
    for (const char* mark : {"/docker/", "/docker-", "/libpod-", "/crio-", "/kubepods", "/lxc/", "/cri-containerd"})
      if (path.find(mark) != std::string_view::npos) container = true;
  }
  return joined({container ? "container" : ""});
}

/// "/dev/pts/3" of a controlling terminal's device number; empty: none.
inline std::string terminal_name(int device) {
  const unsigned number = static_cast<unsigned>(device);
  const unsigned major = number >> 8 & 0xfffU;
  const unsigned minor = (number & 0xffU) | (number >> 12 & 0xfff00U);
  if (device == 0) return {};
  if (major >= 136 && major <= 143) return joined({"/dev/pts/", std::to_string((major - 136) * 256 + minor)});
  if (major == 4 && minor < 64) return joined({"/dev/tty", std::to_string(minor)});
  if (major == 4) return joined({"/dev/ttyS", std::to_string(minor - 64)});
  return joined({"device ", std::to_string(major), ":", std::to_string(minor)});
}

inline std::string read_origin_file(pid_t pid, const char* leaf) {
  char path[64];
  char text[4096];
  const long size = platform::read_small_file(platform::proc_path(path, pid, leaf), text, sizeof text);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

inline constexpr std::string_view runner_words = "CI runner ";

inline bool is_of_runner(std::string_view origin) noexcept {
  return same(origin.substr(0, runner_words.size()), runner_words);
}

/// The service that manages a process ("systemd unit …"), or empty. What has a terminal was started
/// by hand, though a terminal emulator or a multiplexer may itself be a unit.
inline std::string managing_unit(pid_t pid) {
  platform::process_stat facts;
  if (platform::read_process_stat(pid, facts) == 0 && facts.terminal != 0) return {};
  const std::string origin = origin_of_cgroups(read_origin_file(pid, "cgroup"));
  if (same(origin.substr(0, 8), "systemd ")) return origin;
  if (!is_of_runner(origin)) return {};
  // A job has a parent in the unit: what started it. The runner itself has not, nor, as it may be, what a job has
  // left: when in doubt the unit's.
  const bool known = platform::read_process_stat(pid, facts) == 0 && facts.parent > 1;
  if (known && same(origin_of_cgroups(read_origin_file(facts.parent, "cgroup")), origin)) return {};
  return joined({"systemd ", std::string_view(origin).substr(runner_words.size())});
}

/// Where `pid` was started from, as far as can be seen. Never empty.
inline std::string started_from(pid_t pid) {
  const std::string unit = managing_unit(pid);
  if (!unit.empty()) return unit;
  const std::string origin = origin_of_cgroups(read_origin_file(pid, "cgroup"));
  const bool of_runner = is_of_runner(origin);
  const bool in_container =
      same(origin, "container") || ::access("/.dockerenv", F_OK) == 0 || ::access("/run/.containerenv", F_OK) == 0;
  platform::process_stat facts;
  std::string terminal;
  const char* through = "";
  pid_t at = pid;
  for (int depth = 0; depth < 64 && at > 0 && *through == '\0'; ++depth) {
    if (platform::read_process_stat(at, facts) != 0) break;
    if (depth == 0) terminal = terminal_name(facts.terminal);
    const std::string_view name = facts.name;
    if (depth > 0) {
      if (same(name.substr(0, 4), "tmux")) through = "tmux";
      else if (same(name, "screen") || same(name, "SCREEN")) through = "screen";
      else if (same(name, "sshd") || same(name, "sshd-session")) through = "ssh";
      else if (same(name, "cron") || same(name, "crond") || same(name, "CRON") || same(name, "anacron"))
        through = "cron";
      else if (same(name, "atd")) through = "at";
    }
    at = facts.parent;
  }
  const bool bare = *through == '\0' && terminal.empty();
  if (bare && of_runner) return origin;
  const char* before = terminal.empty() ? "" : *through == '\0' ? "terminal " : ", terminal ";
  const char* after = in_container ? (bare ? "container" : " (in a container)") : bare ? "unknown" : "";
  return joined({through, before, terminal, after});
}

}  // namespace instance_guard::detail
