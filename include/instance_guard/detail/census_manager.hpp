// layer 4: who manages a process: its service, its guard, or the session that it was started in.
#pragma once

#include <sys/stat.h>

#include <ctime>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../pid_lockfile.hpp"
#include "age_text.hpp"
#include "census_command.hpp"
#include "census_session.hpp"
#include "census_view.hpp"
#include "container_id.hpp"
#include "lock_origin.hpp"
#include "printable_text.hpp"

namespace instance_guard::detail {

/// The guards of this host that the caller can see. `ec`: not_enough_memory.
inline std::vector<lock_status> census_locks(const census_options& options, std::error_code& ec) {
  std::vector<lock_status> result;
  lock_options where;
  where.directory = options.lock_directory;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    where.scope = scope;
    std::error_code unseen;
    for (lock_status& each : list(where, false, unseen)) {
      bool known = false;  // one directory for both scopes
      for (const lock_status& other : result) known = known || (other.path == each.path && other.name == each.name);
      if (each.holder && each.state != lock_state::abandoned && !known) result.push_back(std::move(each));
    }
    if (is(unseen, std::errc::not_enough_memory)) ec = unseen;
  }
  return result;
}

/// Reaps what others leave behind, without having started it. Process 1 of a container may be
/// anything, and what it has below it its own: then its name tells.
inline bool is_reaper(const census_process& of) noexcept {
  const std::string_view name = of.info->name();
  if (of.pid() == 1) return is_first_init_name(name);
  if (name == "systemd") {
    for (const std::string& each : of.image->arguments)
      if (each == "--user") return true;
    return false;
  }
  return is_init_name(name) && name != "busybox";
}

/// True if a process was not started by its parent, but left to it.
inline bool is_adopted(const census_view& view, const census_process& of) noexcept {
  const census_process* parent = view.parent(of);
  if (parent == nullptr) return false;  // parent 0: from outside of this pid namespace
  if (is_reaper(*parent)) return true;
  // A child is born into the session of the one that starts it. Whoever is in another one, and has
  // not made it, was born to somebody else; unless the parent has made its own meanwhile, which
  // process 1 can't have done: it was there first.
  const pid_t session = of.info->session;
  return session > 0 && session != of.pid() && session != parent->info->session &&
         (parent->pid() == 1 || parent->info->session != parent->pid());
}

/// Runs the jobs of others; not one that somebody talks to.
inline bool is_job_runner(const census_process& of) {
  const std::string agent = agent_of(of);
  for (const char* each : {"github", "jenkins", "gitlab", "buildkite", "gitea", "forgejo"})
    if (agent == each) return true;
  return false;
}

/// True if nobody in the same unit started before it: its unit has started it. (Of several in the same tick each.)
inline bool is_first_of_unit(const census_view& view, const census_process& of, const std::string& origin) {
  for (const census_process& each : view.all)
    if (each.alive() && each.info->id.start_time < of.info->id.start_time &&
        origin_of_cgroups(each.origin().cgroup) == origin)
      return false;
  return true;
}

/// A runner that its unit has started, or what its unit has started it through: no agent is above it. When in doubt
/// it is the unit's; all others in the cgroup of such a unit are jobs', or what jobs have left.
inline bool is_runner_itself(const census_view& view, const census_process& of, const std::string& origin) {
  const census_process* at = view.parent(of);
  for (int depth = 0; depth < 256 && at != nullptr; ++depth, at = view.parent(*at))
    if (at->role == process_role::agent) return false;
  if (is_first_of_unit(view, of, origin)) return true;
  const census_process* down = &of;
  for (int depth = 0; depth < 4; ++depth) {
    if (is_job_runner(*down)) return true;
    const process_range children = view.table->children_of(down->pid());
    if (children.size() != 1) return false;
    down = view.find(children.begin()->id.pid);
    if (down == nullptr) return false;
  }
  return false;
}

inline bool set_unit(const census_view& view, const census_process& of, process_manager& out) {
  // What has a terminal was started by hand, though the terminal may itself be a unit's.
  if (of.info->terminal != 0) return false;
  std::string origin = origin_of_cgroups(of.origin().cgroup);
  if (is_of_runner(origin)) {
    if (!is_runner_itself(view, of, origin)) return false;
    origin.replace(0, runner_words.size(), "systemd ");
  }
  for (const auto& [begin, kind] :
       {std::pair<std::string_view, manager_kind>{"systemd user unit ", manager_kind::user_unit},
        {"systemd unit ", manager_kind::unit}})
    if (starts_with(origin, begin)) {
      out.kind = kind;
      out.name = origin.substr(begin.size());
      return true;
    }
  return false;
}

/// "/…/app-firefox-1234.scope" of a desktop, "/system.slice/cron.service" of jobs.
inline bool set_scope(const census_process& of, process_manager& out) {
  for (std::string_view rest = of.origin().cgroup; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    const std::string_view leaf = base_name(line);
    if (ends_with(leaf, ".scope") && (starts_with(leaf, "app-") || starts_with(leaf, "snap."))) {
      out.kind = manager_kind::desktop;
      out.name = leaf;
      return true;
    }
    if (leaf == "cron.service" || leaf == "crond.service" || leaf == "atd.service") {
      out.kind = manager_kind::cron;
      out.name = leaf == "atd.service" ? "at" : "cron";
      return true;
    }
  }
  return false;
}

inline bool set_guard(const census_view& view, const std::vector<lock_status>& locks, const census_process& of,
                      process_manager& out) {
  for (const lock_status& each : locks)
    if (each.holder->process == of.info->id) out.holds.push_back(each.name);
  const census_process* at = &of;
  for (int depth = 0; depth < 256 && at != nullptr; ++depth, at = view.parent(*at))
    for (const lock_status& each : locks)
      if (each.holder->process == at->info->id || (each.holder->warden && each.holder->warden == at->info->id)) {
        out.kind = manager_kind::guard;
        out.name = each.name;
        out.process = at->pid();
        return true;
      }
  return false;
}

/// The nearest above it through which people, timers or supervisors start something.
inline bool set_starter(const census_view& view, const census_process& of, process_manager& out) {
  const census_process* at = &of;
  for (int depth = 0; depth < 256; ++depth) {
    if (is_adopted(view, *at)) break;
    at = view.parent(*at);
    if (at == nullptr || at->ended || is_reaper(*at)) break;
    const std::string_view name = at->info->name();
    const std::string executable = executable_name(*at);
    out.process = at->pid();
    if (at->role == process_role::agent) {
      out.kind = manager_kind::agent;
      out.name = agent_of(*at);
      return true;
    }
    if (at->role == process_role::supervisor) {
      out.kind = manager_kind::supervisor;
      out.name = supervisor_name(executable);
      for (const std::string_view each : {name, base_name(at->program.given), base_name(at->program.path)})
        if (out.name.empty()) out.name = supervisor_name(each);
      return true;
    }
    if (at->role != process_role::session) continue;
    const std::string_view which = is_session_program(executable) ? std::string_view(executable) : name;
    const auto is = [&](manager_kind kind, std::string_view called) {
      out.kind = kind;
      out.name = called;
      return true;
    };
    if (starts_with(which, "tmux")) return is(manager_kind::tmux, "tmux");
    if (which == "screen" || which == "SCREEN") return is(manager_kind::tmux, "screen");
    if (starts_with(which, "sshd") || which == "dropbear" || which == "mosh-server")
      return is(manager_kind::ssh, "ssh");
    if (which == "atd") return is(manager_kind::cron, "at");
    for (const std::string_view each : {"cron", "crond", "CRON", "cronie", "anacron", "fcron"})
      if (which == each) return is(manager_kind::cron, "cron");
    if (starts_with(which, "containerd-shim") || which == "conmon")
      return is(manager_kind::container, of.origin().container);
    if (of.info->terminal != 0) return is(manager_kind::terminal, "");
    return is(manager_kind::program, escaped(which));
  }
  out.process = 0;
  return false;
}

/// Seconds since somebody typed at a terminal; empty: can't be told.
inline std::optional<std::chrono::seconds> idle_time(const std::string& terminal) {
  struct stat facts = {};
  if (!starts_with(terminal, "/dev/") || ::stat(terminal.c_str(), &facts) != 0 || !S_ISCHR(facts.st_mode)) return {};
  const auto idle = std::chrono::seconds(::time(nullptr) - facts.st_atime);
  return idle.count() > 0 ? idle : std::chrono::seconds(0);
}

/// Who manages it. `with_guard`: a guard counts as well.
inline process_manager manager_of(const census_view& view, const std::vector<lock_status>& locks,
                                  const census_process& of, bool with_guard = true) {
  process_manager result;
  const session_mark mark = mark_of(*of.image);
  result.session = mark.agent;
  result.session_id = mark.id;
  result.terminal = terminal_name(static_cast<int>(of.info->terminal));
  result.idle = idle_time(result.terminal);
  process_manager guard;
  const bool guarded = set_guard(view, locks, of, guard);
  result.holds = guard.holds;
  const auto settled = [&] {
    if (set_unit(view, of, result)) return true;
    if (!of.origin().container.empty() && of.origin().container != view.own_container) {
      result.kind = manager_kind::container;
      result.name = of.origin().container;
      return true;
    }
    return false;
  };
  if (settled()) return result;
  if (guarded && with_guard) {
    result.kind = guard.kind;
    result.name = guard.name;
    result.process = guard.process;
    return result;
  }
  if (set_starter(view, of, result)) {
    if (result.kind == manager_kind::agent && result.name == result.session) result.session_alive = true;
    return result;
  }
  result.process = 0;
  if (set_scope(of, result)) return result;
  if (!mark.agent.empty()) result.session_alive = session_may_live(view, of, mark);
  // Whoever leads the session of an open terminal is somebody's shell, or what was started as one.
  if (of.info->terminal != 0 && (of.info->session == of.pid() || !is_adopted(view, of))) {
    result.kind = manager_kind::terminal;
    return result;
  }
  if (is_adopted(view, of)) return result;
  if (const census_process* parent = view.parent(of); parent != nullptr && parent->pid() != 1) {
    result.kind = manager_kind::program;
    result.process = parent->pid();
    result.name = escaped(parent->info->name());
  }
  return result;
}

inline const process_manager& census_process::manager() const {
  if (late.manager == nullptr) {
    late.manager = std::make_unique<process_manager>();
    if (view != nullptr) *late.manager = manager_of(*view, *view->locks, *this);
  }
  return *late.manager;
}

}  // namespace instance_guard::detail

namespace instance_guard {

inline std::string process_manager::text() const {
  const std::string safe = detail::escaped(name);
  std::string result;
  switch (kind) {
    case manager_kind::unit: return "systemd unit " + safe;
    case manager_kind::user_unit: return "systemd user unit " + safe;
    case manager_kind::launchd: return "launchd " + safe;
    case manager_kind::container: return "container " + (detail::is_container_digest(name) ? name.substr(0, 12) : safe);
    case manager_kind::supervisor: return safe;
    case manager_kind::cron: return safe;
    case manager_kind::desktop: return "desktop " + safe;
    case manager_kind::guard: result = "guard " + safe; break;
    case manager_kind::agent: result = safe + " session, pid " + std::to_string(process); break;
    case manager_kind::tmux:
    case manager_kind::ssh: result = safe; break;
    case manager_kind::program: result = safe + ", pid " + std::to_string(process); break;
    case manager_kind::terminal: break;
    case manager_kind::nobody:
      if (session.empty()) return "nobody";
      if (session_alive) return "nobody; " + session + " may live";
      return "nobody: its " + session + (session == "session" ? " has ended" : " session has ended");
  }
  if (!terminal.empty()) {
    result += result.empty() ? "terminal " : ", terminal ";
    result += terminal;
    if (idle && *idle >= std::chrono::hours(1)) result += ", idle " + detail::age_text(*idle, "");
  }
  return result.empty() ? "terminal" : result;
}

}  // namespace instance_guard
