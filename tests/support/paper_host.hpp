// A host on paper: a table made by hand, for what can't be staged, or only by chance.
#pragma once

#include <unistd.h>

#include <chrono>
#include <instance_guard/ghost_census.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "temporary_directory.hpp"

namespace support {

using namespace instance_guard;
using namespace std::chrono_literals;

/// A host on paper: process 1 is an init, all others are hours old unless they say so. Numbers
/// are beyond what the kernel gives, so that none of them is a process here.
class paper_host {
 public:
  static constexpr pid_t base = 5'000'000;

  paper_host() {
    process_info init = row(1, 0, "systemd");
    init.user = 0;
    rows_.push_back(init);
    details_.emplace_back();
  }

  /// A process; its number counts from `base`.
  struct draft {
    int number = 0;
    int parent = 0;  ///< 0: process 1
    std::string name = "python3";
    std::vector<std::string> arguments = {};
    std::string executable = "/usr/bin/python3.11";
    std::string directory = "/nonexistent/home";
    int session = -1;  ///< -1: its own
    int group = -1;    ///< -1: its own
    std::string cgroup = {};
    std::vector<process_variable> markers = {};
    std::chrono::seconds age = 5h;
    std::uint64_t started = 0;  ///< clock ticks; 0: all at once
    process_state state = process_state::sleeping;
    std::uint64_t terminal = 0;
    uid_t user = ::geteuid();
    std::uint64_t memory = 10 << 20;
    std::string container = {};
    std::chrono::milliseconds processor = 0ms;
    bool deleted = false;  ///< its executable is no longer there
  };
  paper_host& with(const draft& what) {
    process_info info = row(base + what.number, what.parent == 0 ? 1 : base + what.parent, what.name);
    info.session = base + (what.session < 0 ? what.number : what.session);
    info.group = base + (what.group < 0 ? what.number : what.group);
    info.state = what.state;
    info.terminal = what.terminal;
    info.user = what.user;
    info.resident_bytes = what.memory;
    info.cpu_time = what.processor;
    info.started_at = now_ - what.age;
    if (what.started != 0) info.id.start_time = what.started;
    process_details more;
    more.arguments = what.arguments;
    more.executable = {what.executable, 0, 0, what.deleted};
    more.working_directory.path = what.directory;
    more.cgroup = what.cgroup;
    more.markers = what.markers;
    more.container = what.container;
    rows_.push_back(info);
    details_.push_back(std::move(more));
    return *this;
  }
  process_table table() const { return process_table::of(rows_, details_, now_); }
  census take(census_options options = {}, const process_table* earlier = nullptr) const {
    options.lock_directory = locks_->path();
    return take_census(table(), earlier, options);
  }

 private:
  process_info row(pid_t pid, pid_t parent, const std::string& name) const {
    process_info info;
    info.id = {pid, {}, 1, static_cast<std::uint64_t>(pid)};
    info.parent = parent;
    info.session = info.group = pid;
    info.threads = 1;
    info.state = process_state::sleeping;
    info.started_at = now_ - 24h * 30;
    name.copy(info.name_bytes, sizeof info.name_bytes - 1);
    return info;
  }
  std::chrono::system_clock::time_point now_ = std::chrono::system_clock::now();
  std::vector<process_info> rows_;
  std::vector<process_details> details_;
  std::shared_ptr<temporary_directory> locks_ = std::make_shared<temporary_directory>();
};

using draft = paper_host::draft;

inline std::string unit(const std::string& name) { return "0::/system.slice/" + name + ".service\n"; }
inline draft bot(int number, std::vector<std::string> words = {}) {
  words.insert(words.begin(), {"python3", "/nonexistent/shiva/main.py"});
  return {.number = number, .arguments = std::move(words)};
}
inline draft managed(int number, const std::string& name = "shiva", std::vector<std::string> words = {}) {
  draft result = bot(number, std::move(words));
  result.cgroup = unit(name);
  return result;
}
inline std::vector<std::string> kinds(const census& result) {
  std::vector<std::string> list;
  for (const ghost& each : result.ghosts) list.emplace_back(to_string(each.kind));
  return list;
}
inline std::size_t notes(const census& result, note_kind kind) {
  std::size_t count = 0;
  for (const note& each : result.notes) count += each.kind == kind;
  return count;
}

}  // namespace support
