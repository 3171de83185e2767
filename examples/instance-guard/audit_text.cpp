// The census for people: each ghost with who it is, why, and what to type.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "audit_report.hpp"
#include "audit_words.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

constexpr std::size_t most_rows = 3;  // of a group, and of notes of one kind, without --verbose
constexpr int red = 31;
constexpr int yellow = 33;

std::string level_word(severity level) {
  if (level == severity::critical) return coloured("CRITICAL", red);
  if (level == severity::warning) return coloured("WARNING ", yellow);
  return "NOTE    ";
}

/// The largest that fits `columns`, if words of `text` have to go to the next line.
std::string head_of(severity level, std::string_view kind, std::string_view headline, std::size_t columns) {
  constexpr std::size_t indent = 20;
  // row() measures text, and colour is none.
  const std::string lines = row("", shown(headline), indent, columns);
  return level_word(level) + " " + cell(kind, 10) + " " + lines.substr(indent);
}

std::string directory_of(const census_entry& entry) {
  std::string text = entry.working_directory.string();
  const char* home = std::getenv("HOME");
  const std::string_view prefix = home == nullptr ? std::string_view() : home;
  if (prefix.size() > 1 && text.compare(0, prefix.size(), prefix) == 0 &&
      (text.size() == prefix.size() || text[prefix.size()] == '/'))
    text.replace(0, prefix.size(), "~");
  return text.empty() ? "-" : shown(text);
}

std::string pid_of(const census_entry& entry) { return std::to_string(entry.process.id.pid); }

std::string trimmed(std::string line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + "\n";
}

/// "keep  51877    7d 2h   142 MB  launchd com.knox.shiva   args: +--debug"
std::string duplicate_rows(const audit_report& report, const ghost& found, std::size_t columns) {
  constexpr std::size_t indent = 34;
  std::string text;
  for (const census_entry& each : found.processes) {
    const std::string label = cell(each.keep ? "keep" : "end", 4) + "  " + cell(pid_of(each), 7) + " " +
                              cell(age_of(report, each), 7) + " " + memory(each.process.resident_bytes);
    std::string who = shown(each.managed_by.text());
    if (const std::string commit = commit_of(each); !commit.empty()) who += "   " + commit;
    if (!each.difference.empty()) who += "   args: " + shown(each.difference);
    text += row(label, who, indent, columns);
    if (report.verbose) text += row("", command_of(each), indent, columns);
  }
  return text;
}

std::string plain_rows(const audit_report& report, const ghost& found, std::size_t columns) {
  const bool with_directory = std::any_of(found.processes.begin(), found.processes.end(),
                                          [](const census_entry& each) { return !each.working_directory.empty(); });
  const std::size_t room = columns - 8 - 7 - 2 - 7 - 1 - 7 - 2;
  const std::size_t manager = with_directory ? room / 2 + 4 : room;
  std::string text;
  if (found.processes.size() > 1)
    text = trimmed(std::string(8, ' ') + cell("PID", 7) + "  " + cell("AGE", 7) + " " + cell("MEMORY", 7) + "  " +
                   cell("MANAGED BY", manager) + "  " + (with_directory ? "DIRECTORY" : ""));
  std::size_t told = 0;
  for (const census_entry& each : found.processes) {
    if (!report.verbose && found.processes.size() > most_rows + 1 && told == most_rows) break;
    ++told;
    text += trimmed(std::string(8, ' ') + cell(pid_of(each), 7) + "  " + cell(age_of(report, each), 7) + " " +
                    cell(memory(each.process.resident_bytes), 7) + "  " + cell(shown(each.managed_by.text()), manager) +
                    "  " + (with_directory ? cut(directory_of(each), room - manager - 2) : ""));
    if (report.verbose || found.processes.size() == 1)
      text += row("", cut(command_of(each), 2 * (columns - 17)), 17, columns);
  }
  if (told < found.processes.size())
    text += row("",
                "... " + std::to_string(found.processes.size() - told) + " more: " + report.again + " --kind " +
                    std::string(to_string(found.kind)) + " --verbose",
                8, columns);
  return text;
}

std::string proof_rows(const ghost& found, std::size_t columns) {
  std::string facts;
  const auto add = [&](const evidence& each) {
    facts += (facts.empty() ? "" : ", ") + shown(each.key) + "=" + shown(each.value);
  };
  for (const evidence& each : found.proof) add(each);
  std::string text = facts.empty() ? "" : row("facts", facts, 8, columns);
  for (const census_entry& entry : found.processes) {
    facts.clear();
    for (const evidence& each : entry.proof) add(each);
    if (!facts.empty()) text += row("", pid_of(entry) + ": " + facts, 8, columns);
  }
  return text;
}

std::string ghost_text(const audit_report& report, const ghost& found, std::size_t columns) {
  std::string text = head_of(found.level, to_string(found.kind), found.headline, columns);
  text +=
      found.kind == ghost_kind::duplicate ? duplicate_rows(report, found, columns) : plain_rows(report, found, columns);
  if (!found.why.empty()) text += row("why", shown(found.why), 8, columns);
  if (report.verbose) text += proof_rows(found, columns);
  if (!found.remedy.empty()) text += row("do", shown(found.remedy), 8, columns);
  return text;
}

std::string notes_text(const audit_report& report, std::size_t columns) {
  std::string text;
  std::vector<std::size_t> told(32);
  std::size_t left_out = 0;
  for (const note& each : report.census.notes) {
    std::size_t& count = told[static_cast<std::size_t>(each.kind) % told.size()];
    if (!report.verbose && each.level == severity::note && count >= most_rows) {
      ++left_out;
      continue;
    }
    ++count;
    std::string kind(to_string(each.kind));
    std::replace(kind.begin(), kind.end(), '_', '-');
    text += level_word(each.level) + " " + row("", kind + ": " + shown(each.text), 9, columns).substr(9);
  }
  if (left_out > 0) text += "         " + counted(left_out, "more note", "more notes") + ": --verbose\n";
  return text;
}

}  // namespace

std::string summary_of(const audit_report& report) {
  const std::size_t critical = report.findings_of(severity::critical);
  const std::size_t warnings = report.findings_of(severity::warning);
  std::string text;
  if (critical > 0) text = std::to_string(critical) + " critical";
  if (warnings > 0) text += (text.empty() ? "" : ", ") + counted(warnings, "warning", "warnings");
  if (text.empty()) return report.census.complete ? "clean" : "nothing found, but not all could be seen";
  return text;
}

std::string headline_of(const audit_report& report) {
  const std::size_t ghosts = report.ghosts();
  const std::string what = (ghosts == 0 ? "no ghosts" : counted(ghosts, "ghost", "ghosts")) + " among " +
                           counted(report.census.processes, "process", "processes") +
                           (report.all_users ? "" : " (user " + shown(report.user) + ")");
  const std::string when = ", " + local_time(report.census.taken_at) + ": ";
  const std::size_t rest = width(when) + width(what);
  return cut(shown(report.host), rest < 70 ? 80 - rest : 10) + when + what;
}

std::string command_of(const census_entry& entry) {
  if (entry.arguments.empty()) return "[" + shown(entry.name) + "]";
  return command_line(entry.arguments);
}

std::string age_of(const audit_report& report, const census_entry& entry, const char* between) {
  return age(std::chrono::duration_cast<std::chrono::seconds>(report.census.taken_at - entry.process.started_at),
             between);
}

std::string commit_of(const census_entry& entry) {
  std::string text;
  for (const evidence& each : entry.proof) {
    if (each.key == "commit_now" && text.empty()) text = "HEAD " + shown(each.value.substr(0, 7));
    if (each.key == "commit_at_start") text = "HEAD was " + shown(each.value.substr(0, 7));
  }
  return text;
}

std::string audit_text(const audit_report& report, std::size_t columns) {
  std::string text = headline_of(report) + "\n";
  if (columns >= 120 && !report.census.ghosts.empty()) {
    text += "\n" + audit_wide_table(report, columns);
  } else {
    for (const ghost& each : report.census.ghosts) text += "\n" + ghost_text(report, each, columns);
  }
  const std::string notes = notes_text(report, columns);
  if (!notes.empty()) text += "\n" + notes;
  text += "\n";
  for (const blind_spot& each : report.census.blind_spots) {
    const bool others = each.what == "other_users" && !report.all_users;
    text +=
        row("", "not seen: " + shown(each.text) + (others ? " (use sudo or --all-users)" : ""), 2, columns).substr(2);
  }
  return text + summary_of(report) + ".   exit " + std::to_string(report.exit_code) + "\n";
}

}  // namespace tool
