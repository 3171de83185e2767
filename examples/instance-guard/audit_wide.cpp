// The census as one table, where a terminal is wide.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "audit_report.hpp"
#include "audit_words.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

// SEVERITY KIND PID AGE MEMORY CPU, each with two blanks behind it.
constexpr std::size_t before_manager = 8 + 2 + 9 + 2 + 7 + 2 + 6 + 2 + 7 + 2 + 4 + 2;
constexpr std::size_t manager_columns = 28;
constexpr std::size_t most_rows = 3;

std::string line_of(const std::string& pid, const std::string& age, const std::string& memory, const std::string& cpu,
                    const std::string& manager, const std::string& command, std::size_t columns) {
  std::string line = cell(pid, 7) + "  " + cell(age, 6) + "  " + cell(memory, 7) + "  " + cell(cpu, 4) + "  " +
                     cell(manager, manager_columns) + "  " +
                     cut(command, columns - before_manager - manager_columns - 2);
  while (line.back() == ' ') line.pop_back();
  return line + "\n";
}

std::string share_of_cpu(const audit_report& report, const std::vector<census_entry>& entries) {
  double share = 0;
  for (const census_entry& each : entries) {
    const auto age =
        std::chrono::duration_cast<std::chrono::milliseconds>(report.census.taken_at - each.process.started_at);
    if (age.count() > 0) share += static_cast<double>(each.process.cpu_time.count()) / static_cast<double>(age.count());
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", share * 100);
  return text;
}

/// Many of one kind in one row.
std::string group_row(const audit_report& report, const ghost& found, std::size_t columns) {
  std::string pids;
  for (std::size_t i = 0; i < most_rows; ++i) pids += std::to_string(found.processes[i].process.id.pid) + " ";
  const census_entry& oldest = *std::min_element(
      found.processes.begin(), found.processes.end(),
      [](const census_entry& a, const census_entry& b) { return a.process.started_at < b.process.started_at; });
  return line_of(std::to_string(found.processes.size()) + "x", age_of(report, oldest, ""),
                 memory(found.resident_bytes()), share_of_cpu(report, found.processes), shown(oldest.managed_by.text()),
                 shown(found.program) + "   (" + pids + "... --verbose)", columns);
}

std::string process_row(const audit_report& report, const ghost& found, const census_entry& each, std::size_t columns) {
  const std::string role = found.kind != ghost_kind::duplicate ? "" : each.keep ? "keep  " : "end   ";
  return line_of(std::to_string(each.process.id.pid), age_of(report, each, ""), memory(each.process.resident_bytes),
                 share_of_cpu(report, {each}), shown(each.managed_by.text()), role + command_of(each), columns);
}

/// "51877 HEAD 9f31c02, 88120 HEAD was 41be77a".
std::string commits_of(const ghost& found) {
  std::string text;
  for (const census_entry& each : found.processes)
    if (const std::string commit = commit_of(each); found.kind == ghost_kind::duplicate && !commit.empty())
      text += (text.empty() ? "" : ", ") + std::to_string(each.process.id.pid) + " " + commit;
  return text;
}

}  // namespace

std::string audit_wide_table(const audit_report& report, std::size_t columns) {
  constexpr std::size_t indent = 10;
  const std::string blank(indent + 11, ' ');
  std::string text = "SEVERITY  KIND       " + line_of("PID", "AGE", "MEMORY", "CPU", "MANAGED BY", "COMMAND", columns);
  for (const ghost& each : report.census.ghosts) {
    const bool critical = each.level == severity::critical;
    const std::string level = critical ? coloured("CRITICAL", 31) : coloured("WARNING ", 33);
    std::string begin = level + "  " + cell(to_string(each.kind), 9) + "  ";
    if (each.kind != ghost_kind::duplicate && !report.verbose && each.processes.size() > most_rows + 1) {
      text += begin + group_row(report, each, columns);
    } else {
      for (const census_entry& one : each.processes) {
        text += begin + process_row(report, each, one, columns);
        begin = blank;
      }
    }
    if (const std::string commits = commits_of(each); !commits.empty())
      text += row("        code", commits, indent + 5, columns);
    if (!each.why.empty()) text += row("        why", shown(each.why), indent + 5, columns);
    if (!each.remedy.empty()) text += row("        do", shown(each.remedy), indent + 5, columns);
  }
  return text;
}

}  // namespace tool
