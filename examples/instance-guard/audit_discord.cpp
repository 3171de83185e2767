// The census as messages for a Discord channel.
#include <string>
#include <string_view>
#include <vector>

#include "audit_report.hpp"
#include "audit_words.hpp"
#include "json.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

// Discord takes 2,000 characters; bytes are never fewer.
constexpr std::size_t most = 2'000;
constexpr std::string_view fence = "```";

/// For a code block, which only backticks end.
std::string inside_block(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '`') result += "\xcb\x8b";  // U+02CB, which looks like one
    else result += c;
  }
  return result;
}

/// For text in which Discord looks for marks.
std::string plain(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (std::string_view("\\`*_~|<>@#[]()").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

std::string line_of(const audit_report& report, const ghost& found) {
  std::string text = found.level == severity::critical ? "CRIT " : "WARN ";
  text += cell(to_string(found.kind), 9) + " ";
  if (found.kind == ghost_kind::duplicate) {
    text += cell(shown(found.program), 17) + " ";
    for (const census_entry& each : found.processes) {
      text += (&each == &found.processes.front() ? "" : ", ");
      text += (each.keep ? "keep " : "end ") + std::to_string(each.process.id.pid) + " (" + age_of(report, each, "") +
              ", " + shown(each.managed_by.text()) + ")";
    }
  } else {
    text += shown(found.headline);
    if (found.processes.size() > 1 && found.headline.find("B,") == std::string::npos)
      text += ", " + memory(found.resident_bytes());
  }
  return text;
}

std::string payload(const std::string& content) {
  json message;
  message["content"] = content;
  message["allowed_mentions"]["parse"] = json::array();
  return message.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// What is on record of earlier audits, and no more than that.
std::string last_ghost_of(const audit_report& report) {
  if (!report.last_ghost) return "no ghost on record";
  return "last ghost " +
         age(std::chrono::duration_cast<std::chrono::seconds>(report.census.taken_at - *report.last_ghost)) + " ago";
}

std::string header_of(const audit_report& report) {
  const std::string host = plain(cut(shown(report.host), 64));
  std::size_t held = 0;
  for (const lock_view& each : report.locks) held += each.status.state == lock_state::held ? 1U : 0U;
  if (report.findings_of(severity::critical) + report.findings_of(severity::warning) > 0)
    return "**" + host + ": " + summary_of(report) + "** (" + local_time(report.census.taken_at).substr(0, 10) + ")";
  return "**" + host + ": clean** " + counted(report.census.processes, "process", "processes") + ", " +
         counted(held, "guard", "guards") + " held, " + last_ghost_of(report) +
         (report.census.complete ? "" : ", not all could be seen");
}

}  // namespace

std::vector<std::string> audit_discord(const audit_report& report) {
  std::vector<std::string> lines;
  for (const ghost& each : report.census.ghosts) lines.push_back(inside_block(cut(line_of(report, each), 300)));
  for (const note& each : report.census.notes)
    if (each.level != severity::note) lines.push_back(inside_block(cut("WARN service   " + shown(each.text), 300)));
  std::vector<std::string> result;
  std::string content = header_of(report);
  bool open = false;
  for (const std::string& each : lines) {
    const std::size_t needed = (open ? 0 : 1 + fence.size()) + 1 + each.size() + 1 + fence.size();
    if (content.size() + needed > most) {
      result.push_back(payload(content + (open ? "\n" + std::string(fence) : "")));
      content.clear();
      open = false;
    }
    if (!open) content += (content.empty() ? "" : "\n") + std::string(fence);
    open = true;
    content += "\n" + each;
  }
  result.push_back(payload(content + (open ? "\n" + std::string(fence) : "")));
  return result;
}

}  // namespace tool
