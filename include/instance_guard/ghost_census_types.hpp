// layer 4: what a census is asked for, and what it tells: options, ghosts, notes.
//
// Plain values; none of them owns anything. Texts that come from processes, files or repositories
// (names, arguments, paths, manager names) are the raw bytes: whoever prints them makes them
// harmless first (detail/printable_text.hpp). `headline`, `why` and `remedy` are printable already.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "process_identity.hpp"
#include "process_table.hpp"

namespace instance_guard {

/// Why a process should not be running.
enum class ghost_kind {
  zombie,     ///< finished, never reaped
  orphan,     ///< alive, nobody supervises it
  duplicate,  ///< one of several of what should run once; also one that keeps a service out
  stale       ///< alive, but runs code that has since been replaced
};

/// "zombie", "orphan", "duplicate", "stale".
constexpr std::string_view to_string(ghost_kind kind) noexcept {
  switch (kind) {
    case ghost_kind::zombie: return "zombie";
    case ghost_kind::orphan: return "orphan";
    case ghost_kind::duplicate: return "duplicate";
    case ghost_kind::stale: return "stale";
  }
  return "";
}

/// How bad it is: a note is no ghost.
enum class severity { note, warning, critical };

/// "note", "warning", "critical".
constexpr std::string_view to_string(severity level) noexcept {
  switch (level) {
    case severity::note: return "note";
    case severity::warning: return "warning";
    case severity::critical: return "critical";
  }
  return "";
}

/// Who would notice that a process ended, or end it.
enum class manager_kind {
  nobody,      ///< its parent is gone, and no one took over
  unit,        ///< systemd's, of the system
  user_unit,   ///< systemd's, of a user
  launchd,     ///< a launchd job
  container,   ///< another container than the caller's
  supervisor,  ///< pm2, supervisord, runit, s6, ...
  guard,       ///< it holds a guard, or a guard's warden ends it
  cron,        ///< also at(1)
  desktop,     ///< an application that a desktop has started
  agent,       ///< a living coding agent or CI runner
  tmux,        ///< also screen(1)
  ssh,         ///< a living ssh session
  terminal,    ///< started by hand, its terminal is open
  program      ///< a child of another living program
};

/// "nobody", "unit", ... as the enumerators are called.
constexpr std::string_view to_string(manager_kind kind) noexcept {
  constexpr std::string_view names[] = {"nobody",     "unit",  "user_unit", "launchd", "container",
                                        "supervisor", "guard", "cron",      "desktop", "agent",
                                        "tmux",       "ssh",   "terminal",  "program"};
  return names[static_cast<int>(kind)];
}

/// Who manages a process, as the kernel tells: cgroup, parents, terminal. Environment variables,
/// which travel, only name the session that it was started in.
struct process_manager {
  manager_kind kind = manager_kind::nobody;
  std::string name = {};      ///< "shiva.service", a container's id, "claude", "tmux", "cron", "pm2", a guard's name
  std::string terminal = {};  ///< "/dev/pts/3", or empty
  pid_t process = 0;          ///< the managing process, where it is one; 0: none
  std::vector<std::string> holds = {};            ///< names of the guards that it holds itself, whoever started it
  std::string session = {};                       ///< the agent whose mark it carries ("claude"), or empty
  std::string session_id = {};                    ///< the mark's value, if it names one session
  bool session_alive = false;                     ///< that agent lives, as far as can be told
  std::optional<std::chrono::seconds> idle = {};  ///< since somebody last typed at its terminal

  /// Somebody starts it again, or meant it to be there: a service manager, a supervisor, a
  /// container, cron, a guard. Not a person's session.
  bool is_service() const noexcept {
    switch (kind) {
      case manager_kind::unit:
      case manager_kind::user_unit:
      case manager_kind::launchd:
      case manager_kind::container:
      case manager_kind::supervisor:
      case manager_kind::guard:
      case manager_kind::cron: return true;
      default: return false;
    }
  }

  /// For people, printable: "systemd unit shiva.service", "terminal /dev/pts/3, idle 3d",
  /// "nobody: its claude session has ended". Never empty.
  std::string text() const;
};

/// One fact that proves a finding: "session_leader" = "gone".
struct evidence {
  std::string key = {};
  std::string value = {};
};

/// A process in a finding.
struct census_entry {
  process_info process = {};
  std::string name = {};  ///< comm
  std::vector<std::string> arguments = {};
  std::string executable = {};
  std::filesystem::path working_directory = {};
  process_manager managed_by = {};
  bool keep = false;                 ///< of a duplicate: the one that should stay
  std::string difference = {};       ///< of a duplicate: how its arguments differ: "+--debug"; printable
  std::vector<evidence> proof = {};  ///< what is true of this one alone
};

/// Ghosts of one kind, user and program.
struct ghost {
  ghost_kind kind = ghost_kind::orphan;
  severity level = severity::warning;
  uid_t user = 0;
  std::string program = {};                  ///< "shiva/main.py", "pytest"; printable
  std::string headline = {};                 ///< "shiva/main.py runs 2 times"; printable
  std::string why = {};                      ///< the proof in words; printable
  std::string remedy = {};                   ///< a command to type, or what to do; printable
  std::vector<census_entry> processes = {};  ///< oldest first; of duplicates the one to keep first
  std::vector<evidence> proof = {};

  /// Memory of all of them; of duplicates, of those to be ended.
  std::uint64_t resident_bytes() const noexcept {
    std::uint64_t sum = 0;
    for (const census_entry& each : processes)
      if (!each.keep) sum += each.process.resident_bytes;
    return sum;
  }
};

/// What a note is about.
enum class note_kind {
  long_running,        ///< by hand or by nobody, for longer than older_than
  detached,            ///< nobody's, but on purpose: it ignores SIGHUP or leads its own session
  idle_session,        ///< a terminal or agent that nobody has touched, and what it holds
  living_agent,        ///< left by its parent, while an agent that may be its own lives
  unconfirmed_zombie,  ///< seen once: a second table is needed
  service_missing,     ///< fewer of a declared service than there should be; a warning
  replaced_libraries   ///< tools in terminals that run replaced files
};

/// "long_running", ... as the enumerators are called.
constexpr std::string_view to_string(note_kind kind) noexcept {
  constexpr std::string_view names[] = {"long_running",       "detached",        "idle_session",      "living_agent",
                                        "unconfirmed_zombie", "service_missing", "replaced_libraries"};
  return names[static_cast<int>(kind)];
}

/// Something worth knowing that is no ghost.
struct note {
  note_kind kind = note_kind::long_running;
  severity level = severity::note;
  std::string text = {};  ///< printable
  std::vector<census_entry> processes = {};
};

/// What could not be seen, and why.
struct blind_spot {
  std::string what = {};  ///< "other_users", "executable", "reflog", ...
  std::string text = {};  ///< printable: "431 processes of other users"
  std::size_t count = 0;
};

/// A service that is declared by its command line.
struct service_rule {
  std::string name = {};
  std::string pattern = {};  ///< POSIX extended regular expression on the arguments, joined by blanks
  std::size_t count = 1;     ///< how many there should be
};

/// What was found of a declared service.
struct service_state {
  std::string name = {};
  std::size_t expected = 1;
  std::size_t found = 0;
  std::vector<process_identity> processes = {};  ///< one each: wrappers and workers count with their root
};

/// What a census looks for.
struct census_options {
  std::chrono::seconds min_age{600};        ///< younger ones are no orphans or duplicates
  std::chrono::seconds older_than{86'400};  ///< threshold of the notes long_running and idle_session
  std::vector<service_rule> services = {};
  std::vector<std::string> ignore = {};  ///< as service_rule::pattern: never ghosts
  std::vector<ghost_kind> kinds = {};    ///< empty: all
  bool all_users = false;                ///< else only processes of the caller's effective user
  /// How many commits lie between two of a repository; empty: can't be told. The hashes are 40 or
  /// 64 hexadecimal digits, the directory is the working tree's. Not called if empty.
  std::function<std::optional<int>(const std::filesystem::path& repository, const std::string& from,
                                   const std::string& to)>
      commits_between = {};
  std::filesystem::path lock_directory = {};  ///< as in lock_options; empty: the default ones
};

/// What take_census() found.
struct census {
  std::chrono::system_clock::time_point taken_at = {};
  std::size_t processes = 0;       ///< looked at
  std::size_t unseen = 0;          ///< of other users: not looked at
  bool complete = true;            ///< false: something that was asked for could not be seen
  std::vector<ghost> ghosts = {};  ///< critical first, then duplicate, stale, orphan, zombie
  std::vector<note> notes = {};
  std::vector<blind_spot> blind_spots = {};
  std::vector<service_state> services = {};

  /// The worst of all ghosts and notes.
  severity worst() const noexcept {
    severity result = severity::note;
    for (const ghost& each : ghosts)
      if (each.level > result) result = each.level;
    for (const note& each : notes)
      if (each.level > result) result = each.level;
    return result;
  }
};

}  // namespace instance_guard
