// layer 4: services that somebody has declared, and services that are kept out.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "census_duplicate.hpp"
#include "census_manager.hpp"
#include "census_pattern.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

/// The processes that a declared service's pattern means, the one to keep first.
inline std::vector<instance> service_instances(const census_view& view, const command_pattern& pattern,
                                               const std::vector<left_process>& left) {
  const auto is_meant = [&](const census_process& of) {
    return of.visible && !of.ended && !of.info->kernel_thread && !of.ancestor && !of.ignored &&
           (of.role == process_role::program || of.role == process_role::supervisor) &&
           !is_session_tool(of.program.path) && pattern.matches(of);
  };
  std::vector<instance> result;
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    const census_process& of = view.all[i];
    if (!is_meant(of)) continue;
    bool counted_above = false;
    for (const census_process* at = view.parent(of); at != nullptr; at = view.parent(*at))
      counted_above = counted_above || is_meant(*at);
    if (!counted_above) result.push_back({i, rank_of(of.manager()), left[i].is == left_as::orphan, false, {}});
  }
  std::stable_sort(result.begin(), result.end(), [&](const instance& a, const instance& b) {
    const auto order = [&](const instance& each) {
      return std::make_tuple(-each.rank, each.orphan, view.all[each.index].info->id.start_time);
    };
    return order(a) < order(b);
  });
  return result;
}

inline void report_service(census_view& view, const service_rule& rule, const std::vector<instance>& found,
                           const census_options& options, census& out) {
  service_state state;
  state.name = rule.name;
  state.expected = rule.count;
  state.found = found.size();
  for (const instance& each : found) state.processes.push_back(view.all[each.index].info->id);
  out.services.push_back(std::move(state));
  const std::string name = escaped(rule.name);
  if (found.size() < rule.count) {
    note missing;
    missing.kind = note_kind::service_missing;
    missing.level = severity::warning;
    missing.text = found.empty() ? name + ": none running" : name + ": " + std::to_string(found.size()) + " running";
    missing.text += ", " + std::to_string(rule.count) + " should be";
    for (const instance& each : found) missing.processes.push_back(entry_of(view.all[each.index]));
    out.notes.push_back(std::move(missing));
    return;
  }
  ghost one;
  one.kind = ghost_kind::duplicate;
  one.program = name;
  one.headline = name + " runs " + std::to_string(found.size()) + " times, " + std::to_string(rule.count) + " should";
  one.why = "declared: " + std::to_string(rule.count) + " of it";
  one.proof = {{"service", rule.name}, {"expected", std::to_string(rule.count)}};
  std::vector<const census_process*> ending;
  for (std::size_t i = 0; i < found.size(); ++i) {
    census_process& of = view.all[found[i].index];
    census_entry entry = entry_of(of);
    entry.keep = i < rule.count;
    const bool young = found[i].rank < 2 && view.age(of) < options.min_age;
    if (!entry.keep && (of.extra || young || !of.alive())) continue;
    if (!entry.keep) {
      of.reported = of.extra = true;
      ending.push_back(&of);
      if (found[i].rank < found.front().rank) one.level = severity::critical;
    }
    one.processes.push_back(std::move(entry));
  }
  if (ending.empty()) return;
  one.user = one.processes.front().process.user;
  // Without what was declared it would be no ghost for who looks again.
  one.remedy = ending_remedy(ending, " --service " +
                                         pasteable(rule.name + "=" + rule.pattern + "=" + std::to_string(rule.count)) +
                                         age_option(options));
  out.ghosts.push_back(std::move(one));
}

/// A unit's start was refused by a holder that nobody manages: the service is not running.
inline void report_blocked(census_view& view, const std::vector<lock_status>& locks, census& out) {
  for (const lock_status& each : locks) {
    census_process* holder = view.find(each.holder->process.pid);
    if (each.state != lock_state::held || holder == nullptr || holder->info->id != each.holder->process) continue;
    if (!holder->visible || holder->ignored) continue;
    const process_manager manager = manager_of(view, locks, *holder, false);
    if (manager.is_service() || !holder->alive()) continue;
    const refusal* last = nullptr;
    for (const refusal& one : each.refusals)
      if (starts_with(one.started_from, "systemd ") && one.at >= each.holder->acquired_at) last = &one;
    if (last == nullptr) continue;
    ghost one;
    one.kind = ghost_kind::duplicate;
    one.level = severity::critical;
    one.user = holder->info->user;
    one.program = escaped(each.name);
    one.headline = one.program + ": " + escaped(last->started_from) + " is kept out";
    one.why = "its start was refused; the guard is held by " + named(*holder) + ", " + manager.text() +
              ", which no service manager looks after";
    one.remedy = "instance-guard stop " + pasteable(each.name);
    one.proof = {{"blocked", last->started_from}, {"lock", each.name}, {"refused_at", utc_text(last->at)}};
    census_entry entry = entry_of(*holder);
    entry.managed_by = manager;
    one.processes.push_back(std::move(entry));
    holder->reported = holder->extra = true;
    out.ghosts.push_back(std::move(one));
  }
}

}  // namespace instance_guard::detail
