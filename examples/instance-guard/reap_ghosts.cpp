// reap PID... and reap --orphans: only what a census that is taken now calls a ghost.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "audit_words.hpp"
#include "census_commands.hpp"
#include "process_facts.hpp"
#include "reap_trees.hpp"
#include "session_scan.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;
using std::chrono::milliseconds;

/// What is to happen.
struct plan {
  std::vector<doomed_process> all = {};
  std::vector<std::string> refused = {};  ///< "pid 7 is no ghost: ..."
  std::vector<std::string> gone = {};     ///< what was to be ended, and has by itself
};

doomed_process doomed(const ghost& found, const census_entry& entry) {
  doomed_process result;
  result.who = entry.process.id;
  result.command = command_of(entry);
  result.why = std::string(to_string(found.kind)) + ": " + shown(found.why);
  return result;
}

void plan_orphans(const census& found, plan& out) {
  for (const ghost& each : found.ghosts) {
    if (each.kind != ghost_kind::orphan) continue;
    for (const census_entry& entry : each.processes) {
      doomed_process one = doomed(each, entry);
      one.kept = why_not_ended(each, entry);
      out.all.push_back(std::move(one));
    }
  }
}

void plan_pid(const census& found, pid_t pid, plan& out) {
  const std::string who = "pid " + std::to_string(pid);
  std::string reason;
  for (const ghost& each : found.ghosts)
    for (const census_entry& entry : each.processes) {
      if (entry.process.id.pid != pid) continue;
      const std::string fault = why_not_ended(each, entry);
      if (fault.empty()) {
        out.all.push_back(doomed(each, entry));
        return;
      }
      reason = fault;
    }
  process_facts facts;
  if (!reason.empty()) {
    out.refused.push_back(who + " is not ended: " + reason);
  } else if (!read_facts(pid, facts)) {
    out.gone.push_back(who + " is not there (any more)");
  } else if (facts.ended()) {
    out.refused.push_back(who + " is a zombie: it has ended already, its parent " + std::to_string(facts.parent) +
                          " does not reap it");
  } else {
    out.refused.push_back(who + " is no ghost (any more): see instance-guard audit --verbose");
  }
}

std::string table(const std::vector<doomed_process>& list, bool kept) {
  constexpr std::size_t indent = 20;
  std::string text;
  for (const doomed_process& each : list) {
    if (each.kept.empty() == kept) continue;
    if (text.empty()) text = "  PID      AGE      COMMAND\n";
    text += row(cell(std::to_string(each.who.pid), 7) + "  " + age(age_of(each.who)), cut(each.command, 240), indent);
    text += row("  why", cut(kept ? each.kept : each.why, 240), indent);
  }
  return text;
}

std::string section(const char* verb, const std::vector<doomed_process>& list, bool kept) {
  const auto count = static_cast<std::size_t>(
      std::count_if(list.begin(), list.end(), [&](const doomed_process& each) { return each.kept.empty() != kept; }));
  if (count == 0 && kept) return {};
  return std::string(verb) + " " + counted(count, "process", "processes") + "\n" + table(list, kept);
}

}  // namespace

int reap_ghosts(const reap_arguments& arguments, milliseconds grace, const invocation&) {
  census_arguments what = arguments.census;
  // A second look at zombies would tell nothing that can be ended. (Of orphans that are duplicates one
  // may be to keep: they are ended one by one.)
  what.kinds = {"orphan", "duplicate", "stale"};
  const census found = take_census_now(what);
  plan to_do;
  if (arguments.orphans) plan_orphans(found, to_do);
  std::set<pid_t> pids;  // one that is named twice is one
  for (const std::string& each : arguments.pids)
    if (const auto pid = static_cast<pid_t>(std::atoi(each.c_str())); pids.insert(pid).second)
      plan_pid(found, pid, to_do);
  for (const auto* lines : {&to_do.refused, &to_do.gone})
    for (const std::string& each : *lines) std::fputs((each + "\n").c_str(), stderr);
  if (arguments.dry_run) {
    add_descendants(to_do.all, process_table::read());
    print(section("would end", to_do.all, false) + section("would keep", to_do.all, true));
    return to_do.refused.empty() ? 0 : 1;
  }
  std::vector<doomed_process> left = end_trees(to_do.all, grace);
  std::erase_if(to_do.all, [&](const doomed_process& each) {
    return std::any_of(left.begin(), left.end(), [&](const doomed_process& one) { return one.who == each.who; });
  });
  print(section("ended", to_do.all, false) + section("kept", to_do.all, true));
  if (!left.empty())
    std::fputs((counted(left.size(), "process", "processes") + " could not be ended\n" + table(left, false)).c_str(),
               stderr);
  const bool denied = std::any_of(to_do.all.begin(), to_do.all.end(),
                                  [](const doomed_process& each) { return each.kept == "not permitted"; });
  return to_do.refused.empty() && left.empty() && !denied ? 0 : 1;
}

}  // namespace tool
