// The census as the output of a Nagios plugin.
#include <algorithm>
#include <string>
#include <vector>

#include "audit_report.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

constexpr ghost_kind worst_first[] = {ghost_kind::duplicate, ghost_kind::stale, ghost_kind::orphan, ghost_kind::zombie};

std::string status_word(int exit_code) {
  constexpr const char* words[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
  return words[exit_code >= 0 && exit_code < 3 ? exit_code : 3];
}

/// What stands behind a '|' is performance data.
std::string without_bars(std::string text) {
  std::replace(text.begin(), text.end(), '|', '/');
  return text;
}

}  // namespace

std::string audit_nagios(const audit_report& report) {
  std::string counts;
  for (const ghost_kind kind : worst_first)
    if (const std::size_t count = report.ghosts_of(kind); count > 0)
      counts += (counts.empty() ? "" : ", ") + std::to_string(count) + " " + std::string(to_string(kind));
  std::vector<std::string> programs;
  for (const ghost& each : report.census.ghosts)
    if (programs.size() < 5 && std::find(programs.begin(), programs.end(), each.program) == programs.end())
      programs.push_back(each.program);
  std::string who;
  for (const std::string& each : programs) who += (who.empty() ? "" : ", ") + cut(shown(each), 40);
  std::string text = "GHOSTS " + status_word(report.exit_code) + " - ";
  text += counts.empty() ? "none among " + counted(report.census.processes, "process", "processes")
                         : counts + " (" + who + ")";
  for (const service_state& each : report.census.services)
    if (each.found < each.expected)
      text +=
          ", " + shown(each.name) + ": " + std::to_string(each.found) + " of " + std::to_string(each.expected) + " run";
  if (!report.census.complete) text += ", not all could be seen";
  text = without_bars(text) + " |";
  for (const ghost_kind kind : {ghost_kind::zombie, ghost_kind::orphan, ghost_kind::duplicate, ghost_kind::stale})
    text += " " + std::string(to_string(kind)) + "=" + std::to_string(report.ghosts_of(kind));
  return text + " unseen=" + std::to_string(report.census.unseen) + "\n";
}

}  // namespace tool
