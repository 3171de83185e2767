// A program that uses the guard (owner/main.cpp), with its children, under a test's control.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "other_user.hpp"
#include "scene.hpp"
#include "stubborn_children.hpp"

namespace support {

struct owner_options {
  std::vector<std::string> arguments = {};  // "guard=NAME", "child=setsid sleep", ...
  std::size_t ready = 0;                    // how many "ready" lines to wait for
  bool as_nobody = false;
  std::vector<std::string> before = {};  // a command that runs it: strace, a shell
  std::function<bool()> before_exec = {};
};

/// The N of "ready pid=N end=...", or of a line with another start; 0 if it is none.
inline pid_t ready_pid(std::string_view line, std::string_view start = "ready pid=") {
  if (!line.starts_with(start)) return 0;
  return static_cast<pid_t>(std::strtol(std::string(line.substr(start.size())).c_str(), nullptr, 10));
}

class owner {
 public:
  owner(const scene& s, owner_options options) : process_(s.start(command(s, options), start(options))) {
    while (ready_ < options.ready) {
      const auto line = process_.read_line();
      if (!line) break;
      if (line->starts_with("ready")) ++ready_;
      lines_.push_back(*line);
    }
    complete_ = ready_ == options.ready;
  }

  /// All children said that they are ready.
  bool complete() const { return complete_; }
  const std::vector<std::string>& lines() const { return lines_; }
  /// The pids of the "ready" lines, in the order of the lines.
  std::vector<pid_t> ready() const {
    std::vector<pid_t> result;
    for (const std::string& line : lines_)
      if (const pid_t pid = ready_pid(line)) result.push_back(pid);
    return result;
  }
  /// The pid of the first "ready" line that ends with this word; 0 if there is none.
  pid_t ready(std::string_view end) const {
    for (const std::string& line : lines_)
      if (line.ends_with("end=" + std::string(end))) return ready_pid(line);
    return 0;
  }
  /// After "warden=": its warden's pid; 0 if it did not say.
  pid_t warden() const {
    for (const std::string& line : lines_)
      if (const pid_t pid = ready_pid(line, "warden pid=")) return pid;
    return 0;
  }
  /// Lets it go on behind "wait-line=".
  void go_on() { process_.write("\n"); }
  program& process() { return process_; }

 private:
  static std::vector<std::string> command(const scene& s, const owner_options& options) {
    std::vector<std::string> list = options.before;
    list.push_back(s.path_of(INSTANCE_GUARD_TEST_OWNER));
    list.push_back("helper=" + s.helper());
    list.insert(list.end(), options.arguments.begin(), options.arguments.end());
    return list;
  }
  static start_options start(const owner_options& options) {
    start_options result;
    // A sanitizer must let it die by the signals that the test sends, with their status.
    result.environment = {"ASAN_OPTIONS=handle_segv=0:handle_abort=0:detect_leaks=0",
                          "TSAN_OPTIONS=handle_segv=0:handle_abort=0", "UBSAN_OPTIONS=handle_segv=0:handle_abort=0"};
    result.before_exec = options.before_exec;
    if (options.as_nobody) result.before_exec = [] { return become(nobody); };
    return result;
  }

  program process_;
  std::vector<std::string> lines_;
  std::size_t ready_ = 0;
  bool complete_ = false;
};

/// The helper programs that live now: all that an owner started. Its warden is not among them.
inline std::vector<found_process> helpers_of(const scene& s) {
  std::vector<found_process> result = s.processes();
  std::erase_if(result,
                [&](const found_process& each) { return each.executable == s.path_of(INSTANCE_GUARD_TEST_OWNER); });
  return result;
}

/// True if a new instance gets the name and none of the old one's children lives then. It ends
/// again at once, in order.
inline bool next_instance_is_alone(const scene& s, const std::string& name, bool as_nobody = false) {
  owner next(s, {.arguments = {"wait=20000", "guard=" + name, "wait-line=", "end=return"}, .as_nobody = as_nobody});
  // On a busy machine a look at all processes may have to be repeated for up to 10 s, for each start that was killed.
  const bool acquired = next.process().read_until("acquired", 3 * patience).has_value();
  bool alone = acquired;
  for (const found_process& each : helpers_of(s)) {
    FAIL_CHECK("overlaps: " << each.what);
    alone = false;
  }
  next.go_on();
  const auto status = next.process().wait();
  if (!acquired) FAIL_CHECK("the next instance did not get the name in time");
  const std::string end = status ? status->str() : "not ended";
  CHECK(end == "exit code 21");
  return alone && status && status->code() == 21;
}

}  // namespace support
