// layer 4: sessions that nobody has touched, and what they hold: of a terminal, of an agent.
//
// When somebody last typed at a terminal is known. An agent without one leaves no such trace: it is
// told only of one that has hardly used the processor in all its life, and has started nothing of
// late that still runs. One that worked hard a week ago and rests since can't be told from one that
// is used now and then: it is not noted.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "age_text.hpp"
#include "census_session.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

/// "helper (pid 812), bot (pid 813), 24 MB, the guard shiva".
inline std::string held_text(const std::vector<const census_process*>& all) {
  std::string text;
  std::string guards;
  std::uint64_t memory = 0;
  std::size_t untold = 0;
  for (const census_process* each : all) {
    memory += each->info->resident_bytes;
    for (const std::string& name : each->manager().holds)
      guards += (guards.empty() ? ", the guard " : ", ") + escaped(name);
    if (text.size() >= 120) {
      ++untold;
      continue;
    }
    const std::string& shown = each->program.shown;
    text += (text.empty() ? "" : ", ") + (shown.empty() ? escaped(each->info->name()) : shown) + " (pid " +
            std::to_string(each->pid()) + ")";
  }
  if (untold > 0) text += ", " + std::to_string(untold) + " more";
  return text + ", " + memory_text(memory) + shortened(std::move(guards), 200);
}

/// All that descends from it and lives, as far as it can be seen.
inline std::vector<const census_process*> held_by(const census_view& view, const census_process& of) {
  std::vector<const census_process*> result;
  std::vector<pid_t> open = {of.pid()};
  while (!open.empty() && result.size() < 10'000) {
    const pid_t pid = open.back();
    open.pop_back();
    for (const process_info& child : view.table->children_of(pid)) {
      const census_process* found = view.find(child.id.pid);
      if (found == nullptr || view.parent(*found) == nullptr || !found->alive()) continue;
      open.push_back(found->pid());
      if (found->visible) result.push_back(found);
    }
  }
  return result;
}

/// A terminal that nobody has touched, and what runs in it.
inline void note_idle_terminals(const census_view& view, const census_options& options, census& out) {
  for (const census_process& leader : view.all) {
    if (!leader.visible || !leader.alive() || leader.ancestor || leader.info->session != leader.pid()) continue;
    if (leader.info->terminal == 0 || !leader.manager().idle || *leader.manager().idle < options.older_than) continue;
    std::vector<const census_process*> held;
    for (const process_info& member : view.table->session_members(leader.pid())) {
      const census_process* of = view.find(member.id.pid);
      if (of != nullptr && of->visible && of->alive() && !of->ancestor &&
          (of->role == process_role::program || of->role == process_role::agent))
        held.push_back(of);
    }
    if (held.empty()) continue;
    note one;
    one.kind = note_kind::idle_session;
    for (const census_process* each : held) one.processes.push_back(entry_of(*each));
    one.text = "nobody has touched " + leader.manager().terminal + " for " + age_text(*leader.manager().idle) +
               "; it holds " + held_text(held);
    out.notes.push_back(std::move(one));
  }
}

/// Whoever waits for work there, or is a window, is meant to: what starts it again, a desktop. A
/// guard only says that there is to be one of it.
inline bool may_be_forgotten(const process_manager& manager) noexcept {
  return (!manager.is_service() || manager.kind == manager_kind::guard) && manager.kind != manager_kind::desktop &&
         manager.kind != manager_kind::agent;
}

/// Hardly used: less than this part of its age, all in all.
inline constexpr int least_use_of_processor = 200;

/// An agent without a terminal that nobody uses, as it seems, and what it holds.
inline void note_idle_agents(const census_view& view, const census_options& options, census& out) {
  std::vector<std::size_t> seen;
  for (const living_agent& one : view.agents) {
    const census_process& agent = view.all[one.index];
    if (std::find(seen.begin(), seen.end(), one.index) != seen.end()) continue;
    seen.push_back(one.index);
    if (one.by_id_alone || !agent.visible || !agent.alive() || agent.ancestor || agent.ignored || agent.reported ||
        agent.info->terminal != 0 || view.age(agent) < options.older_than || !may_be_forgotten(agent.manager()) ||
        !agent.alive())
      continue;
    std::vector<const census_process*> held = held_by(view, agent);
    std::chrono::milliseconds used = agent.info->cpu_time;
    bool works = false;
    for (const census_process* each : held) {
      used += each->info->cpu_time;
      works = works || each->ancestor || view.age(*each) < options.older_than;
    }
    if (works || used * least_use_of_processor > view.age(agent)) continue;
    note found;
    found.kind = note_kind::idle_session;
    found.processes.push_back(entry_of(agent));
    for (const census_process* each : held) found.processes.push_back(entry_of(*each));
    found.text = escaped(one.agent) + " (pid " + std::to_string(agent.pid()) + ", " + age_text(view.age(agent)) + ", " +
                 agent.manager().text() + ") has no terminal, and took " +
                 age_text(std::chrono::duration_cast<std::chrono::seconds>(used)) +
                 " of processor time since it started: perhaps nobody uses it; it holds ";
    held.insert(held.begin(), &agent);
    found.text += held_text(held);
    out.notes.push_back(std::move(found));
  }
}

}  // namespace instance_guard::detail
