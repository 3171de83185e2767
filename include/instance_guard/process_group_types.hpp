// layer 3: what a process_group takes and gives: options, exit status, reports.
//
// Plain values; none of them owns anything. Every member has an initialiser, so that
//
//   group.spawn({"worker", "--fast"}, {.environment = {"ROLE=feed"}, .out = stdio::null()});
//
// sets what it names and leaves the rest. Copies are independent: no object here needs a lock.
#pragma once

#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/wait.h>
#include <utility>
#include <vector>

#include "detail/signal_name.hpp"
#include "detail/text.hpp"
#include "error.hpp"
#include "process_identity.hpp"

namespace instance_guard {

/// How stdio::file opens: see open(2). A file that is created gets mode 0666, less the umask.
enum class file_mode {
  read,     ///< must exist
  write,    ///< created where missing; written from the start, the rest of it stays
  append,   ///< created where missing; each write goes to its end, whoever else writes
  truncate  ///< created where missing, emptied otherwise
};

/// Where one standard stream of a child leads. The default, `{}`, is the caller's own stream.
struct stdio {
  enum class target { inherit, null, pipe, file, descriptor, join_out };

  target to = target::inherit;
  std::filesystem::path path = {};   // file only
  file_mode mode = file_mode::read;  // file only
  int number = -1;                   // descriptor only; borrowed

  /// The caller's stream of the same number, as it is at the call. Where the caller has closed
  /// it, the child gets /dev/null: a child without 0, 1 or 2 would write into its first file.
  static stdio inherit() { return {}; }
  /// /dev/null: nothing to read, what is written vanishes.
  static stdio null() { return of(target::null); }
  /// A pipe whose other end is child::in(), out() or err().
  static stdio pipe() { return of(target::pipe); }
  /// A file, opened by the caller during the call: with its rights, and relative to *its*
  /// directory, not to spawn_options::working_directory.
  static stdio file(std::filesystem::path path, file_mode mode) {
    stdio result = of(target::file);
    result.path = std::move(path);
    result.mode = mode;
    return result;
  }
  /// A descriptor of the caller, copied during the call and left open: a socket, a terminal.
  static stdio descriptor(int number) {
    stdio result = of(target::descriptor);
    result.number = number;
    return result;
  }
  /// For err only: the same as out, whatever that is (`2>&1`).
  static stdio join_out() { return of(target::join_out); }

 private:
  static stdio of(target to) {
    stdio result;
    result.to = to;
    return result;
  }
};

/// How a child starts. Everything that is not said here (umask, limits, niceness, affinity,
/// ignored signals, signal mask) is the caller's at the call, as after fork(2) and execve(2).
struct spawn_options {
  /// Added to the caller's environment, in order: "K=V" sets, "K" alone removes.
  /// A name that is empty, or a NUL anywhere, is std::errc::invalid_argument.
  std::vector<std::string> environment = {};
  bool clear_environment = false;                ///< start from nothing instead
  std::filesystem::path working_directory = {};  ///< empty: the caller's, as it is now
  stdio in = {};
  stdio out = {};
  stdio err = {};
  /// A daemon that is meant to stay: it and what it starts do not end with the group.
  bool outlives = false;
  /// Joins the owner's process group, instead of leading one: what a terminal or a shell sends to
  /// that group reaches the child as well, and it is in the foreground when the owner is. Only in a
  /// group with keep_session. child::signal then reaches the child alone, and not at all if the
  /// warden was sent the same signal just now: whoever did that (a service manager) told them all.
  bool same_process_group = false;
};

/// How process_group::run treats a command.
struct run_options {
  /// After this, the command and its subtree are ended and run_result::timed_out is set.
  std::chrono::milliseconds timeout = no_limit;
  /// Written to the command's stdin, which is then closed. Empty: stdin is /dev/null, unless
  /// process.in says otherwise.
  std::string input = {};
  /// Bytes kept of each stream. The rest is read and dropped, so that the command does not
  /// block, and run_result::truncated is set. Does not limit on_output.
  std::size_t max_output = std::size_t{64} << 20;
  /// Called in the thread that called run, with each piece of stdout as it comes; run_result::out
  /// then stays empty. Pieces end anywhere, also inside a line. If it throws, the command and its
  /// subtree are ended and the exception leaves run; it must not throw in the form of run that is
  /// noexcept.
  std::function<void(std::string_view)> on_output = {};
  /// process.out and process.err are captured unless they lead somewhere (null, file,
  /// descriptor); stdio::descriptor(1) shares the caller's stdout. With
  /// `.err = stdio::join_out()` both arrive in run_result::out, in order.
  spawn_options process = {};
};

/// How a process ended, as waitid(2) tells it. The default is "not ended": neither exited()
/// nor signalled().
class exit_status {
 public:
  exit_status() noexcept = default;
  /// From siginfo_t::si_code (CLD_EXITED, CLD_KILLED, CLD_DUMPED) and si_status.
  exit_status(int how, int status, const rusage& usage = {}) noexcept : how_(how), status_(status), usage_(usage) {}

  bool exited() const noexcept { return how_ == CLD_EXITED; }
  /// 0 to 255; -1 if it did not exit.
  int code() const noexcept { return exited() ? status_ & 0xff : -1; }
  bool signalled() const noexcept { return how_ == CLD_KILLED || how_ == CLD_DUMPED; }
  /// The signal that ended it; 0 if none did.
  int signal() const noexcept { return signalled() ? status_ : 0; }
  bool core_dumped() const noexcept { return how_ == CLD_DUMPED; }
  bool success() const noexcept { return exited() && code() == 0; }
  /// What a shell would report: the code, or 128 + the signal.
  int shell_code() const noexcept { return signalled() ? 128 + signal() : code(); }
  /// What the process and the children it waited for have used: getrusage(2).
  const rusage& usage() const noexcept { return usage_; }

  /// "exit code 3", "ended by SIGSEGV (core dumped)", "not ended".
  std::string str() const {
    if (exited()) return detail::joined({"exit code ", std::to_string(code())});
    if (!signalled()) return "not ended";
    return detail::joined({"ended by ", detail::signal_name(signal()), core_dumped() ? " (core dumped)" : ""});
  }

  /// Same end; what was used does not count.
  friend bool operator==(const exit_status& a, const exit_status& b) noexcept {
    return a.how_ == b.how_ && a.status_ == b.status_;
  }

 private:
  int how_ = 0;
  int status_ = 0;
  rusage usage_ = {};
};

/// How a group ends its processes.
struct group_options {
  /// Between stop_signal and SIGKILL. Whoever ends sooner is not waited for longer.
  std::chrono::milliseconds grace{5'000};
  /// Sent first, with SIGCONT, so that a stopped process hears it too. Not to what those start in answer while
  /// they live (a shell's trap, a shutdown hook): that has the grace for its work. A number that is no signal is
  /// std::errc::invalid_argument.
  int stop_signal = SIGTERM;
  /// Children can't gain rights through setuid programs (PR_SET_NO_NEW_PRIVS), and so can't
  /// become processes that the group may not signal.
  bool no_new_privileges = false;
  /// The warden, and so the children, stay in the owner's session and keep its terminal; the
  /// warden in a process group of its own, with all signals blocked. Not for nested groups.
  /// A stop_signal that a supervisor of the owner (a process above it, in another session) has just
  /// sent to every process of their cgroup, the warden too, is not sent once more when terminate()
  /// follows within 250 ms.
  bool keep_session = false;
  /// Children inherit, besides 0, 1 and 2, what execve(2) would have passed on when the group was
  /// made: at most 64 descriptors. The warden keeps them open. Not for nested groups.
  bool inherit_descriptors = false;
};

/// Why a process is still there after SIGKILL.
enum class survival {
  unknown,
  other_user,       ///< it may not be signalled: a setuid program
  uninterruptible,  ///< in a system call that can't be broken off (state D)
  traced,           ///< a debugger holds it
  still_ending      ///< SIGKILL is on its way, or it forks faster than it is killed
};

/// "belongs to another user", ...
constexpr const char* to_string(survival why) noexcept {
  switch (why) {
    case survival::other_user: return "belongs to another user";
    case survival::uninterruptible: return "in an uninterruptible system call";
    case survival::traced: return "held by a debugger";
    case survival::still_ending: return "still ending";
    case survival::unknown: break;
  }
  return "reason unknown";
}

/// One process that could not be ended.
struct survivor {
  process_identity process = {};
  std::string name = {};
  survival why = survival::unknown;
};

/// What kept a group's processes together.
enum class containment {
  process_groups,  ///< POSIX alone: what left its session, and lost its parent, can be missed
  subreaper,       ///< the warden adopts what loses its parent: prctl(2), PR_SET_CHILD_SUBREAPER
  cgroup           ///< as subreaper, and the kernel ends all at once: cgroup.kill in a delegated group
};

/// "process groups", "subreaper", "cgroup".
constexpr const char* to_string(containment mechanism) noexcept {
  switch (mechanism) {
    case containment::process_groups: return "process groups";
    case containment::subreaper: return "subreaper";
    case containment::cgroup: return "cgroup";
  }
  return "unknown";
}

/// The end of a group: proof, not hope.
struct termination_report {
  /// The kernel said that no descendant is left (ECHILD of a subreaper that waits for all).
  bool proven_empty = false;
  std::vector<survivor> survivors = {};
  containment mechanism = containment::process_groups;

  /// One line: "empty (subreaper)", "not proven empty (process groups)",
  /// "2 left (subreaper): pid 712 (sudo) belongs to another user, ...".
  std::string str() const {
    const std::string by = detail::joined({" (", to_string(mechanism), ")"});
    if (survivors.size() == 0) return detail::joined({proven_empty ? "empty" : "not proven empty", by});
    std::string text = detail::joined({std::to_string(survivors.size()), " left", by});
    const char* separator = ": ";
    for (const survivor& each : survivors) {
      text += detail::joined(
          {separator, "pid ", std::to_string(each.process.pid), " (", each.name, ") ", to_string(each.why)});
      separator = ", ";
    }
    return text;
  }
};

/// What process_group::run brings back.
struct run_result {
  exit_status status = {};
  std::string out = {};
  std::string err = {};
  bool timed_out = false;
  bool truncated = false;         ///< max_output was reached: out or err is not all of it
  termination_report ended = {};  ///< of the command's leftovers
};

}  // namespace instance_guard
