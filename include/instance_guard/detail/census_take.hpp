// layer 4: a census from beginning to end: read, resolve, judge by each rule, put in order.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "census_duplicate.hpp"
#include "census_idle.hpp"
#include "census_manager.hpp"
#include "census_notes.hpp"
#include "census_orphan.hpp"
#include "census_pattern.hpp"
#include "census_services.hpp"
#include "census_stale.hpp"
#include "census_view.hpp"
#include "census_zombie.hpp"

namespace instance_guard::detail {

/// What each process runs. `view` and `locks` stay where they are: who manages one is found when a
/// rule asks for it.
inline void resolve_all(census_view& view, const std::vector<lock_status>& locks) {
  view.locks = &locks;
  for (census_process& each : view.all) each.view = &view;
  for (census_process& each : view.all) resolve_program(each, view);
  for (census_process& each : view.all) each.adopted = is_adopted(view, each);
  view.agents = find_agents(view);
}

/// Patterns by their place in a list; empty: one of them is no regular expression.
inline std::vector<std::unique_ptr<command_pattern>> compile(const std::vector<std::string>& texts,
                                                             std::error_code& ec) {
  std::vector<std::unique_ptr<command_pattern>> result;
  for (const std::string& each : texts) {
    result.push_back(std::make_unique<command_pattern>(each));
    if (!*result.back()) ec = std::make_error_code(std::errc::invalid_argument);
  }
  return result;
}

inline bool is_wanted(const census_options& options, ghost_kind kind) {
  const auto& kinds = options.kinds;
  return kinds.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

/// Critical ones first; of one severity duplicates first, then those that hold most memory.
inline void put_in_order(const census_options& options, census& out) {
  auto& all = out.ghosts;
  const auto unwanted = [&](const ghost& each) { return !is_wanted(options, each.kind); };
  all.erase(std::remove_if(all.begin(), all.end(), unwanted), all.end());
  const auto order_of = [](ghost_kind kind) {
    switch (kind) {
      case ghost_kind::duplicate: return 0;
      case ghost_kind::stale: return 1;
      case ghost_kind::orphan: return 2;
      default: return 3;
    }
  };
  std::stable_sort(all.begin(), all.end(), [&](const ghost& a, const ghost& b) {
    if (a.level != b.level) return a.level > b.level;
    if (a.kind != b.kind) return order_of(a.kind) < order_of(b.kind);
    return a.resident_bytes() > b.resident_bytes();
  });
  for (ghost& each : all)
    std::stable_sort(each.processes.begin(), each.processes.end(), [](const census_entry& a, const census_entry& b) {
      if (a.keep != b.keep) return a.keep;
      return a.process.id.start_time < b.process.id.start_time;
    });
}

inline census take(const process_table& now, const process_table* earlier, const census_options& options,
                   std::error_code& ec) {
  census out;
  out.taken_at = now.taken_at();
  std::vector<std::string> texts;
  for (const service_rule& each : options.services) texts.push_back(each.pattern);
  const auto services = compile(texts, ec);
  const auto ignored = compile(options.ignore, ec);
  if (ec) return out;
  census_view view = make_census_view(now, options);
  const std::vector<lock_status> locks = census_locks(options, ec);
  if (ec) return out;
  resolve_all(view, locks);
  for (census_process& each : view.all)
    for (const auto& pattern : ignored) each.ignored = each.ignored || pattern->matches(each);
  std::vector<left_process> left;
  for (census_process& each : view.all) {
    if (each.visible && each.alive() && each.adopted && each.manager().kind == manager_kind::nobody && each.alive())
      each.on_hangup = hangup_of(each.info->id);
    left.push_back(judge_left(view, each));
  }
  // Of several the one is kept that runs current code.
  const bool looks_at_code = is_wanted(options, ghost_kind::stale) || is_wanted(options, ghost_kind::duplicate);
  const std::vector<stale_code> code = looks_at_code ? look_for_stale(view) : std::vector<stale_code>(view.all.size());
  report_blocked(view, locks, out);
  // Of what should run four times three are no duplicate; it is counted instead.
  std::vector<std::vector<instance>> declared;
  for (std::size_t i = 0; i < options.services.size(); ++i) {
    declared.push_back(service_instances(view, *services[i], left));
    for (const instance& each : declared[i])
      view.all[each.index].declared = view.all[each.index].declared || options.services[i].count != 1;
  }
  find_duplicates(view, left, code, options, out);
  for (std::size_t i = 0; i < options.services.size(); ++i)
    report_service(view, options.services[i], declared[i], options, out);
  // What is told as a duplicate is not told as an orphan as well, unless duplicates are not told.
  if (!is_wanted(options, ghost_kind::duplicate))
    for (census_process& each : view.all) each.reported = false;
  report_orphans(view, left, options, out);
  report_stale(view, code, options, out);
  find_zombies(view, earlier, options, out);
  note_left(view, left, options, out);
  note_idle_terminals(view, options, out);
  note_idle_agents(view, options, out);
  note_long_running(view, left, options, out);
  note_unseen(view, options, out);
  put_in_order(options, out);
  // Half a census is none.
  if (view.fault) ec = view.fault;
  return out;
}

}  // namespace instance_guard::detail
