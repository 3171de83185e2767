// layer 4: stale processes: alive, and running code that has since been replaced.
#pragma once

#include <algorithm>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "age_text.hpp"
#include "census_code.hpp"
#include "census_git.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

/// All that was replaced under one process.
struct stale_code {
  std::vector<code_change> changes = {};  ///< what says most first
  std::size_t libraries = 0;
  git_move git = {};
  git_checkout checkout = {};
  explicit operator bool() const noexcept { return !changes.empty() || git.how == git_move::reading::moved; }
};

/// Programs whose code matters: not what people have open, not what each session runs anew.
inline bool can_be_stale(const census_process& of) {
  if (!of.visible || !of.alive() || of.ancestor || of.ignored) return false;
  if (of.role != process_role::program && of.role != process_role::supervisor) return false;
  return !is_session_tool(of.program.module ? of.program.given : of.program.path) && !is_meant_to_stay(of);
}

/// Where the source of a program is: beside its script, or, of an installed runner of sources, in
/// its directory. Compiled programs change when their file does.
inline std::string source_place(const census_process& of) {
  const census_program& program = of.program;
  if (program.interpreter == language::none || !of.same_root || program.key.empty()) return {};
  if (!program.generic) return program.path;
  const std::string& directory = of.details->working_directory.path;
  if (is_system_file(program.path) || program.path.find("/node_modules/") != std::string::npos) return {};
  if (directory.empty() || of.details->working_directory.deleted) return {};
  return directory + "/.";
}

inline stale_code look_at_code(const census_process& of, const census_view& view) {
  stale_code result;
  const auto add = [&](code_change change) {
    if (change) result.changes.push_back(std::move(change));
  };
  if (of.same_root) {
    add(link_change(of, view));
    add(executable_change(of, view));
    add(script_change(of, view));
    std::vector<code_change> libraries = library_changes(of, view);
    result.libraries = libraries.size();
    for (code_change& each : libraries) add(std::move(each));
  } else if (of.image->executable.deleted && !starts_with(of.image->executable.path, "/memfd:")) {
    // Of another root only the kernel's word is known.
    add({"executable_deleted", of.image->executable.path, {}, {}});
  }
  const std::string source = source_place(of);
  if (!source.empty() && !reloads_itself(of)) {
    result.checkout = find_checkout(source, of.info->user, view.slow);
    result.git = moved_since(result.checkout, of.info->started_at, of.info->user);
    if (result.git.how == git_move::reading::moved &&
        is_of_checkout(result.checkout, source, result.git.to, of.info->user) == is_tracked::no)
      result.git = git_move();
  }
  return result;
}

/// Nothing but files of packages, under a tool that somebody has open: a note.
inline bool is_only_upgraded(const stale_code& code, const census_process& of) {
  if (of.manager().is_service() || code.git.how == git_move::reading::moved) return false;
  for (const code_change& each : code.changes)
    if (!is_system_file(each.path)) return false;
  return true;
}

inline std::string ago(wall_time at, wall_time now) {
  if (at == wall_time()) return {};
  return " " + age_text(std::chrono::duration_cast<std::chrono::seconds>(now - at)) + " ago";
}

/// "2026-03-29T03:00:00Z".
inline std::string utc_text(wall_time at) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm parts = {};
  char text[32];
  if (::gmtime_r(&seconds, &parts) == nullptr || std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
    return {};
  return text;
}

/// "2026-03-29", where the caller is.
inline std::string local_date(wall_time at) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm parts = {};
  char text[32];
  if (::localtime_r(&seconds, &parts) == nullptr || std::strftime(text, sizeof text, "%Y-%m-%d", &parts) == 0)
    return {};
  return text;
}

/// "2026-03-22", "2026-03-22 to 2026-03-29".
inline std::string local_dates(wall_time first, wall_time last) {
  const std::string from = local_date(first), to = local_date(last);
  return from == to ? from : from + " to " + to;
}

inline std::string change_text(const code_change& change, std::size_t libraries, wall_time now) {
  const std::string path = escaped(change.path);
  if (change.what == "executable_deleted") return "its file " + path + " was deleted" + ago(change.at, now);
  if (change.what == "executable_replaced") return "its file " + path + " was replaced" + ago(change.at, now);
  if (change.what == "script_newer") return path + " was written to" + ago(change.at, now) + ", after it started";
  if (change.what == "package_newer") return path + " was written to" + ago(change.at, now) + ", after it started";
  if (change.what == "link_moved")
    return "started through " + path + ", which leads to " + escaped(change.now) + " since" + ago(change.at, now);
  return counted(libraries, "library was", "libraries were") + " replaced under it, such as " + path +
         ago(change.at, now);
}

/// The commits between, as far as somebody can count them.
inline std::optional<int> count_commits(const stale_code& code, const census_options& options) {
  if (!options.commits_between || code.git.how != git_move::reading::moved) return {};
#if INSTANCE_GUARD_EXCEPTIONS
  try {
    return options.commits_between(code.checkout.root, code.git.from, code.git.to);
  } catch (...) {
    return {};  // a fault of the caller's: the number is not known then
  }
#else
  return options.commits_between(code.checkout.root, code.git.from, code.git.to);
#endif
}

inline std::string git_text(const stale_code& code, std::optional<int> commits, wall_time now) {
  const std::string from = code.git.from.substr(0, 7);
  const std::string to = code.git.to.substr(0, 7);
  std::string text = "its checkout moved " + from + " -> " + to + " in " + counted(code.git.updates, "update");
  if (commits) text += " (" + counted(static_cast<std::size_t>(std::max(*commits, 0)), "commit") + ")";
  text += " since it started, the newest" + ago(code.git.newest, now);
  if (!commits && !is_shallow(code.checkout)) text += "; git rev-list --count " + from + ".." + to + " counts them";
  return text;
}

inline void add_stale(const stale_code& code, const census_options& options, wall_time now, census_entry& entry,
                      ghost& one) {
  const std::optional<int> commits = count_commits(code, options);
  std::string why;
  if (code.git.how == git_move::reading::moved) {
    why = git_text(code, commits, now);
    entry.proof.push_back({"repository", code.checkout.root});
    entry.proof.push_back({"commit_at_start", code.git.from});
    entry.proof.push_back({"commit_now", code.git.to});
    entry.proof.push_back({"updates", std::to_string(code.git.updates)});
    if (commits) entry.proof.push_back({"commits", std::to_string(*commits)});
    entry.proof.push_back({"newest_update", utc_text(code.git.newest)});
  }
  for (const code_change& each : code.changes) {
    if (why.empty()) why = change_text(each, code.libraries, now);
    entry.proof.push_back({std::string(each.what), each.path});
    if (!each.now.empty()) entry.proof.push_back({"leads_to", each.now});
    if (each.at != wall_time()) entry.proof.push_back({"replaced_at", utc_text(each.at)});
  }
  if (one.why.empty()) {
    one.why = why;
    one.proof = entry.proof;
  }
}

/// What starts these again, or ends those that nobody would: not what ends with its parent, or as a duplicate.
inline std::string stale_remedy(const census_view& view, const ghost& one) {
  remedy_text result;
  std::vector<pid_t> pids;
  const auto is_of_it = [&](const census_process* of) {
    return of != nullptr && std::any_of(one.processes.begin(), one.processes.end(),
                                        [&](const census_entry& each) { return each.process.id == of->info->id; });
  };
  for (const census_entry& each : one.processes) {
    const census_process* of = view.find(each.process.id.pid);
    if (of == nullptr || of->extra || is_of_it(view.parent(*of))) continue;
    const process_manager& manager = of->manager();
    std::string command = manager_command("restart", manager, of->pid());
    if (command.empty() && manager.kind == manager_kind::guard)
      command = "instance-guard stop " + pasteable(manager.name);
    if (command.empty()) pids.push_back(of->pid());
    else result.add(std::move(command));
  }
  if (!pids.empty()) result.add(reap_command(pids, {}));
  return result.text.empty() ? "ends with the duplicate above" : result.text;
}

/// What could not be read of checkouts.
inline void note_unread(const std::vector<stale_code>& code, census& out) {
  std::size_t foreign = 0, unreadable = 0, too_long = 0;
  for (const stale_code& each : code) {
    foreign += each.git.how == git_move::reading::foreign;
    unreadable += each.git.how == git_move::reading::unreadable;
    too_long += each.git.how == git_move::reading::too_long;
  }
  const auto add = [&](std::string what, std::size_t count, const std::string& text) {
    if (count > 0) out.blind_spots.push_back({std::move(what), text, count});
  };
  add("foreign_repository", foreign,
      counted(foreign, "checkout belongs", "checkouts belong") + " to somebody else: not read");
  add("reflog", unreadable, counted(unreadable, "reflog") + " could not be read");
  add("long_reflog", too_long, counted(too_long, "reflog is", "reflogs are") + " too long to be read");
}

/// Looks at the code of each process; by index of view.all.
inline std::vector<stale_code> look_for_stale(const census_view& view) {
  std::vector<stale_code> result(view.all.size());
  for (std::size_t i = 0; i < result.size(); ++i)
    if (can_be_stale(view.all[i])) {
      result[i] = look_at_code(view.all[i], view);
      const bool tells = result[i] || result[i].git.how != git_move::reading::nothing;
      if (tells && (view.all[i].manager().kind == manager_kind::desktop || !view.all[i].alive())) result[i] = {};
    }
  return result;
}

/// One ghost for each user and program.
inline void report_stale(const census_view& view, const std::vector<stale_code>& code, const census_options& options,
                         census& out) {
  std::map<std::pair<uid_t, std::string>, std::size_t> known;
  const wall_time now = view.table->taken_at();
  note upgraded;
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    const census_process& of = view.all[i];
    if (!code[i]) continue;
    if (is_only_upgraded(code[i], of)) {
      upgraded.processes.push_back(entry_of(of));
      continue;
    }
    const auto [at, added] = known.try_emplace({of.info->user, of.program.key}, out.ghosts.size());
    if (added) {
      ghost one;
      one.kind = ghost_kind::stale;
      one.user = of.info->user;
      one.program = of.program.shown;
      out.ghosts.push_back(std::move(one));
    }
    ghost& one = out.ghosts[at->second];
    census_entry entry = entry_of(of);
    add_stale(code[i], options, now, entry, one);
    one.processes.push_back(std::move(entry));
  }
  for (const auto& [key, at] : known) {
    ghost& one = out.ghosts[at];
    wall_time first = one.processes.front().process.started_at, last = first;
    for (const census_entry& each : one.processes) {
      first = std::min(first, each.process.started_at);
      last = std::max(last, each.process.started_at);
    }
    const std::size_t count = one.processes.size();
    one.headline =
        (count == 1 ? one.program + ", pid " + std::to_string(one.processes.front().process.id.pid) + ", runs"
                    : std::to_string(count) + " x " + one.program + " run") +
        " code of " + local_dates(first, last) + " that has been replaced";
    one.remedy = stale_remedy(view, one);
  }
  if (!upgraded.processes.empty()) {
    upgraded.kind = note_kind::replaced_libraries;
    upgraded.text = counted(upgraded.processes.size(), "program runs", "programs run") +
                    " files of packages that were upgraded since; they use the new ones when started again";
    out.notes.push_back(std::move(upgraded));
  }
  note_unread(code, out);
}

}  // namespace instance_guard::detail
