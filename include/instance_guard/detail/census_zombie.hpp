// layer 4: zombies: finished, and never reaped by their parent.
//
// Each process is one for a moment when it ends. A ghost is one that still was, some time later.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

inline std::string zombie_remedy(const census_process* parent) {
  if (parent == nullptr) return "look at its parent: it is not in this pid namespace";
  if (parent->pid() == 1) return "give the container an init: docker run --init, or tini as its first process";
  if (const std::string command = manager_command("restart", parent->manager(), parent->pid()); !command.empty())
    return command;
  if (parent->manager().kind == manager_kind::guard) return "instance-guard stop " + pasteable(parent->manager().name);
  return "restart its parent, " + named(*parent) + ": it does not reap";
}

/// All zombies of one parent are one ghost: the fault is the parent's.
inline void find_zombies(const census_view& view, const process_table* earlier, const census_options& options,
                         census& out) {
  const uid_t user = ::geteuid();
  std::vector<std::pair<pid_t, std::size_t>> of_parent;  // index into out.ghosts
  for (const census_process& each : view.all) {
    if (!each.ended || each.info->state != process_state::zombie) continue;
    if (!options.all_users && each.info->user != user) continue;
    const census_process* parent = view.find(each.info->parent);
    const process_info* before = earlier != nullptr ? earlier->find(each.info->id) : nullptr;
    if (before == nullptr || before->state != process_state::zombie) {
      note seen_once;
      seen_once.kind = note_kind::unconfirmed_zombie;
      seen_once.text = named(*each.info) + " has ended and is not reaped yet; seen once";
      seen_once.processes.push_back(entry_of(each));
      out.notes.push_back(std::move(seen_once));
      continue;
    }
    std::size_t at = out.ghosts.size();
    for (const auto& [pid, index] : of_parent)
      if (pid == each.info->parent && out.ghosts[index].user == each.info->user) at = index;
    if (at == out.ghosts.size()) {
      ghost one;
      one.kind = ghost_kind::zombie;
      one.user = each.info->user;
      one.program = escaped(each.info->name());
      one.remedy = zombie_remedy(parent);
      one.proof = {{"state", "Z"}, {"parent", std::to_string(each.info->parent)}};
      if (parent != nullptr) {
        one.proof.push_back({"parent_name", std::string(parent->info->name())});
        one.proof.push_back({"parent_managed_by", parent->manager().text()});
      }
      out.ghosts.push_back(std::move(one));
      of_parent.emplace_back(each.info->parent, at);
    }
    out.ghosts[at].processes.push_back(entry_of(each));
  }
  for (const auto& [pid, index] : of_parent) {
    ghost& one = out.ghosts[index];
    const census_process* parent = view.find(pid);
    const std::string whose = parent != nullptr ? named(*parent) : "pid " + std::to_string(pid);
    one.headline = counted(one.processes.size(), "zombie") + " of " + whose;
    one.why = "ended, and " + whose + " has not asked how, in two looks";
  }
}

}  // namespace instance_guard::detail
