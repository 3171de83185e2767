// layer 2: what process_table.hpp tells of a process.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "process_identity.hpp"

namespace instance_guard {

/// What a process does at the moment: the letters of proc_pid_stat(5).
enum class process_state : char {
  running = 'R',
  sleeping = 'S',
  waiting = 'D',  ///< can't be interrupted, also not by SIGKILL; a parent in vfork(2), too
  stopped = 'T',
  traced = 't',
  zombie = 'Z',  ///< has ended if it has one thread; else its other threads still run
  dead = 'X',
  idle = 'I',  ///< a thread of the kernel
  unknown = '?'
};

/// One process, as it was when the table was read. A plain value without allocations.
struct process_info {
  process_identity id = {};
  pid_t parent = 0;   ///< 0: none, or outside of this pid namespace
  pid_t session = 0;  ///< pid of the one that made the session; it may be gone
  pid_t group = 0;
  process_state state = process_state::unknown;
  bool kernel_thread = false;
  std::uint32_t threads = 0;
  uid_t user = static_cast<uid_t>(-1);                    ///< effective user
  std::uint64_t terminal = 0;                             ///< device number of its controlling terminal, 0: none
  std::uint64_t resident_bytes = 0;                       ///< physical memory, what it shares with others included
  std::chrono::milliseconds cpu_time{0};                  ///< of all its threads, user and system
  std::chrono::system_clock::time_point started_at = {};  ///< right also after a suspend
  char name_bytes[16] = {};

  /// What it calls itself (comm): at most 15 bytes, any but NUL; escape it before showing it.
  std::string_view name() const noexcept {
    std::size_t size = 0;
    while (size < sizeof name_bytes && name_bytes[size] != '\0') ++size;
    return {name_bytes, size};
  }

  /// Ended, and not yet reaped by its parent. (State Z with several threads is alive: only its
  /// main thread has ended.)
  bool ended() const noexcept {
    return state == process_state::dead || (state == process_state::zombie && threads <= 1);
  }
};

/// A file as a process refers to it. The path is what the kernel shows: of the process's own root
/// directory, and of the time when it was opened.
struct process_file {
  std::string path = {};
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool deleted = false;  ///< no longer at any path
};

/// One environment variable.
struct process_variable {
  std::string name = {};
  std::string value = {};  ///< its first 300 bytes; any but NUL
};

/// What is read only where asked. A part that was not asked for, or could not be read, is empty.
struct process_details {
  /// Any bytes but NUL in each; the process may have rewritten them.
  std::vector<std::string> arguments = {};
  bool arguments_cut = false;  ///< there were more than read_options::max_arguments bytes

  process_file executable = {};
  process_file working_directory = {};

  std::string cgroup = {};          ///< the text of /proc/<pid>/cgroup, see cgroups(7)
  std::string container = {};       ///< its id, as the cgroup's path tells it; empty: none told
  std::uint64_t pid_namespace = 0;  ///< inode; 0: can't be read

  /// Those of session_markers, and of read_options::variables, that it was started with.
  std::vector<process_variable> markers = {};

  /// Executable, arguments and markers were not read: it is a copy of its parent, which is in the
  /// table, too, and has the same. See read_options::skip_copies.
  bool as_parent = false;

  /// Why a part is empty: permission_denied (another user's, or not dumpable), no_such_process
  /// (it ended), resource_unavailable_try_again (reading could hang, or it is executing another
  /// program just now). None: it could be read.
  std::error_code arguments_fault = {};
  std::error_code executable_fault = {};
  std::error_code working_directory_fault = {};
  std::error_code cgroup_fault = {};
  std::error_code markers_fault = {};

  /// The value of a marker, or null.
  const std::string* marker(std::string_view name) const noexcept {
    for (const process_variable& each : markers)
      if (each.name == name) return &each.value;
    return nullptr;
  }
};

/// Environment variables that tell who started a process: agents, CI runners, sessions, guards.
/// One that ends in '_' stands for all that begin so. No other variable is ever kept: the rest of
/// an environment holds secrets.
inline constexpr std::string_view session_markers[] = {"CLAUDECODE",
                                                       "CLAUDE_CODE_ENTRYPOINT",
                                                       "CLAUDE_CODE_SESSION_ID",
                                                       "CODEX_SANDBOX",
                                                       "CODEX_THREAD_ID",
                                                       "CODEX_SANDBOX_",
                                                       "CODEX_CI",
                                                       "CODEX_SESSION_ID",
                                                       "CURSOR_AGENT",
                                                       "CURSOR_TRACE_ID",
                                                       "GEMINI_CLI",
                                                       "GITHUB_ACTIONS",
                                                       "GITHUB_RUN_ID",
                                                       "RUNNER_TRACKING_ID",
                                                       "JENKINS_NODE_COOKIE",
                                                       "BUILD_TAG",
                                                       "TMUX",
                                                       "TMUX_PANE",
                                                       "STY",
                                                       "SSH_CONNECTION",
                                                       "SSH_TTY",
                                                       "INVOCATION_ID",
                                                       "INSTANCE_GUARD_SESSION",
                                                       "INSTANCE_GUARD_KEEP",
                                                       "INSTANCE_GUARD_MARK"};

/// What to read beyond process_info.
struct read_options {
  bool arguments = false;
  bool executable = false;
  bool working_directory = false;
  bool cgroup = false;  ///< and container, and pid namespace
  bool markers = false;
  bool file_ids = true;                     ///< device and inode of the executable and the working directory, if asked
  std::vector<std::string> variables = {};  ///< more names, if `markers`
  std::size_t max_arguments = 256 * 1024;   ///< bytes a process; the kernel allows 6 MiB
  /// Executable, arguments and markers of a process that is a copy of its parent, by fork, and has
  /// executed nothing since are not read: see process_details::as_parent. It halves the time where
  /// there are many workers. Both have one image in memory, so the system tells; but not of a copy
  /// that has written something else over its arguments, as a title. Of a process whose addresses
  /// are not random it does not tell: all of it is read.
  bool skip_copies = false;
  std::optional<uid_t> details_of = {};  ///< details of this user's processes only
  std::string proc = {};                 ///< where it is mounted; empty: /proc

  /// True if all that `other` asks for is asked for here as well.
  bool cover(const read_options& other) const {
    const bool links = other.executable || other.working_directory;
    if (other.markers)
      for (const std::string& each : other.variables)
        if (std::find(variables.begin(), variables.end(), each) == variables.end()) return false;
    return (arguments || !other.arguments) && (executable || !other.executable) &&
           (working_directory || !other.working_directory) && (cgroup || !other.cgroup) &&
           (markers || !other.markers) && (!skip_copies || other.skip_copies) &&
           (file_ids || !other.file_ids || !links) && (max_arguments >= other.max_arguments || !other.arguments) &&
           (!details_of || details_of == other.details_of) && proc == other.proc;
  }

  /// Everything there is.
  static read_options everything() {
    read_options all;
    all.arguments = all.executable = all.working_directory = all.cgroup = all.markers = true;
    return all;
  }
};

}  // namespace instance_guard
