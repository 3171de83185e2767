// layer 4: orphans: alive, left by whoever started them, and nobody's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "census_manager.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

/// What a process that its parent has left is called.
enum class left_as { nothing, orphan, detached, perhaps_used };

/// What is known of a process that its parent has left.
struct left_process {
  left_as is = left_as::nothing;
  bool session_leader_gone = false;
  bool group_leader_gone = false;
  bool directory_deleted = false;
  bool marked = false;  ///< by an agent or session that has ended
};

/// Started into a scope that somebody has made for it (`systemd-run --scope`): not one that a session, a pane or a
/// terminal's tab came with.
inline bool has_scope_of_its_own(const census_process& of) {
  std::string_view rest = of.origin().cgroup;
  while (!rest.empty()) {
    const std::size_t end = rest.find_first_of("/\n");
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!ends_with(part, ".scope") || part == "init.scope") continue;
    if (!starts_with(part, "session-") && !starts_with(part, "tmux-spawn-") && !starts_with(part, "vte-spawn-"))
      return true;
  }
  return false;
}

/// As daemon(7) does it: fork, setsid, fork again; and it reloads on SIGHUP, or has gone to "/". What a shell has left
/// is in a session like that as well, but does neither.
inline bool is_daemon_by_shape(const census_process& of) noexcept {
  return of.info->terminal == 0 && of.info->group == of.info->session && of.info->session != of.pid() &&
         (of.on_hangup == hangup::is_handled || of.details->working_directory.path == "/");
}

/// A program with windows, which somebody may be looking at, whatever has started it: it was given a display, and has a
/// library that talks to one.
inline bool may_have_window(const census_process& of) {
  struct context {
    bool found = false;
    static bool mapping(const platform::mapped_file& file, void* self) noexcept {
      const std::string_view name = base_name(std::string_view(file.path, file.path_size));
      for (const std::string_view each : {"libX11.so", "libX11-xcb.so", "libxcb.so", "libwayland-client.so"})
        if (starts_with(name, each)) static_cast<context*>(self)->found = true;
      return !static_cast<context*>(self)->found;
    }
    static bool variable(const char* text, std::size_t size, void* self) noexcept {
      for (const std::string_view each : {"DISPLAY=", "WAYLAND_DISPLAY="})
        if (size > each.size() && starts_with(std::string_view(text, size), each))
          static_cast<context*>(self)->found = true;
      return !static_cast<context*>(self)->found;
    }
  } library, display;
  // Of what waits in the kernel the memory may not be had; see table_patience.
  platform::process_view process;
  if (of.info->state == process_state::waiting || platform::open_process(of.pid(), process) != 0) return false;
  char buffer[8192];
  platform::view_mapped_files(process, buffer, sizeof buffer, &context::mapping, &library);
  if (library.found) platform::view_environment(process, buffer, sizeof buffer, &context::variable, &display);
  platform::close_process(process);
  return display.found;
}

inline left_process judge_left(const census_view& view, const census_process& of) {
  left_process result;
  const process_info& info = *of.info;
  if (!of.visible || !of.alive() || of.ancestor || of.role == process_role::session || !of.adopted ||
      of.manager().kind != manager_kind::nobody || !of.alive())
    return result;
  // A session or group of 0 was made outside of this pid namespace.
  result.session_leader_gone = info.session > 0 && info.session != of.pid() && !view.lives(info.session);
  result.group_leader_gone = info.group > 0 && info.group != of.pid() && !view.lives(info.group);
  result.directory_deleted = of.details->working_directory.deleted;
  const bool evident = result.session_leader_gone || result.group_leader_gone || result.directory_deleted;
  const session_mark mark = mark_of(*of.image);
  const bool leads = info.session == of.pid();
  if (mark.keep || is_meant_to_stay(of)) {
    result.is = left_as::detached;
    return result;
  }
  if (!mark.agent.empty()) {
    if (of.manager().session_alive) {
      result.is = left_as::perhaps_used;
      return result;
    }
    result.marked = true;
    result.is = left_as::orphan;
    return result;
  }
  if (!evident) {
    if (leads) result.is = left_as::detached;
    return result;
  }
  const bool on_purpose = leads || of.on_hangup == hangup::unknown || of.on_hangup == hangup::is_ignored ||
                          (result.session_leader_gone && is_daemon_by_shape(of)) || has_scope_of_its_own(of) ||
                          may_have_window(of);
  result.is = on_purpose ? left_as::detached : left_as::orphan;
  return result;
}

inline std::vector<evidence> proof_of(const left_process& left, const census_process& of) {
  std::vector<evidence> proof = {{"parent", std::to_string(of.info->parent)}};
  if (left.session_leader_gone) proof.push_back({"session_leader", "gone"});
  if (left.group_leader_gone) proof.push_back({"group_leader", "gone"});
  if (left.directory_deleted) proof.push_back({"working_directory", "deleted"});
  if (left.marked) {
    proof.push_back({"mark", of.manager().session});
    if (!of.manager().session_id.empty()) proof.push_back({"session", of.manager().session_id});
  }
  return proof;
}

/// Those below a process that nobody else manages, itself first.
inline void add_tree(const census_view& view, const census_process& root, const census_options& options,
                     std::vector<const census_process*>& out) {
  out.push_back(&root);
  for (std::size_t i = out.size() - 1; i < out.size() && out.size() < 100'000; ++i)
    for (const process_info& child : view.table->children_of(out[i]->pid())) {
      const census_process* found = view.find(child.id.pid);
      if (found == nullptr || !found->visible || !found->alive() || found->ancestor || found->ignored ||
          found->reported || found->role == process_role::session || found->manager().is_service() || !found->alive() ||
          view.parent(*found) != out[i] || view.age(*found) < options.min_age || mark_of(*found->image).keep)
        continue;
      out.push_back(found);
    }
}

/// What a tree runs: the first program in it that is no wrapper.
inline std::string program_of_tree(const std::vector<const census_process*>& tree, std::size_t begin) {
  for (std::size_t i = begin; i < tree.size(); ++i)
    if (tree[i]->role == process_role::program && tree[i]->program.interpreter != language::shell)
      return tree[i]->program.shown;
  return tree[begin]->program.shown.empty() ? escaped(tree[begin]->info->name()) : tree[begin]->program.shown;
}

/// The agents whose sessions they were started in: "claude", "claude, codex"; and how many
/// sessions.
struct ended_sessions {
  std::size_t count = 0;
  std::string agents = {};
};

inline ended_sessions ended_sessions_of(const ghost& one) {
  ended_sessions result;
  std::vector<std::pair<std::string, pid_t>> seen;
  std::vector<std::string> agents;
  for (const census_entry& each : one.processes) {
    const process_manager& from = each.managed_by;
    if (from.session.empty()) continue;
    std::pair<std::string, pid_t> key(from.session + " " + from.session_id,
                                      from.session_id.empty() ? each.process.session : 0);
    if (std::find(seen.begin(), seen.end(), key) == seen.end()) seen.push_back(std::move(key));
    if (std::find(agents.begin(), agents.end(), from.session) != agents.end()) continue;
    agents.push_back(from.session);
    result.agents += (result.agents.empty() ? "" : ", ") + escaped(from.session);
  }
  result.count = seen.size();
  return result;
}

/// What is true of those that were left themselves, in words.
inline std::string why_left(const ghost& one, const ended_sessions& from, const census_view& view) {
  const auto count = [&](std::string_view key) {
    std::size_t result = 0;
    for (const census_entry& each : one.processes)
      for (const evidence& fact : each.proof) result += fact.key == key;
    return result;
  };
  const std::size_t roots = one.processes.size() - count("below");
  const std::size_t marked = count("mark");
  std::string why = "its parent has left it";
  for (const census_entry& each : one.processes)
    if (const census_process* parent = view.find(each.process.parent);
        parent != nullptr && parent->pid() == each.process.parent) {
      why = "parent is " + escaped(parent->info->name());
      break;
    }
  why += std::string(", no service is ") + (roots == 1 ? "its" : "theirs");
  if (marked == roots && from.agents == "session") return why + "; started in a session that has ended";
  if (marked == roots) return why + "; carries the mark of " + from.agents + ", and no living agent is above it";
  if (count("session_leader") > 0) why += "; the leader of its session is gone";
  else if (count("group_leader") > 0) why += "; the leader of its job is gone";
  if (count("working_directory") > 0) why += "; its directory is deleted";
  if (marked > 0) why += "; " + std::to_string(marked) + " with the mark of " + from.agents;
  return why;
}

/// One ghost for each user and program.
inline void report_orphans(census_view& view, const std::vector<left_process>& left, const census_options& options,
                           census& out) {
  const std::size_t first = out.ghosts.size();
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    census_process& root = view.all[i];
    if (left[i].is != left_as::orphan || root.reported || root.ignored) continue;
    if (view.age(root) < options.min_age) continue;
    std::vector<const census_process*> tree;
    add_tree(view, root, options, tree);
    const std::string program = program_of_tree(tree, 0);
    std::size_t at = first;
    while (at < out.ghosts.size() && (out.ghosts[at].program != program || out.ghosts[at].user != root.info->user))
      ++at;
    if (at == out.ghosts.size()) {
      ghost one;
      one.kind = ghost_kind::orphan;
      one.user = root.info->user;
      one.program = program;
      out.ghosts.push_back(std::move(one));
    }
    for (const census_process* each : tree) {
      census_entry entry = entry_of(*each);
      if (each == &root) entry.proof = proof_of(left[i], root);
      else entry.proof = {{"below", std::to_string(root.pid())}};
      view.find(each->pid())->reported = true;
      out.ghosts[at].processes.push_back(std::move(entry));
    }
  }
  for (std::size_t at = first; at < out.ghosts.size(); ++at) {
    ghost& one = out.ghosts[at];
    const ended_sessions from = ended_sessions_of(one);
    one.why = why_left(one, from, view);
    const std::size_t count = one.processes.size();
    one.headline = count == 1 ? one.program : std::to_string(count) + " x " + one.program;
    one.headline += ", " + memory_text(one.resident_bytes());
    if (from.count > 0) {
      one.headline += ", " + counted(from.count, "ended session");
      if (from.agents != "session") one.headline += " of " + from.agents;
    }
    if (count == 1) one.remedy = reap_command({one.processes.front().process.id.pid}, age_option(options));
    else one.remedy = "instance-guard reap --orphans --dry-run" + age_option(options);
    if (from.count > 0) one.proof.push_back({"ended_sessions", std::to_string(from.count)});
  }
}

}  // namespace instance_guard::detail
