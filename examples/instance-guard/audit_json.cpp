// The census for programs.
#include <string>
#include <utility>
#include <vector>

#include "audit_report.hpp"
#include "json.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

json text_or_null(const std::string& text) { return text.empty() ? json() : json(text); }

/// Facts by their key; several values of one key are an array.
json facts_of(const std::vector<evidence>& proof) {
  json result = json::object();
  for (const evidence& each : proof) {
    json& at = result[each.key];
    if (at.is_null()) at = each.value;
    else if (at.is_array()) at.push_back(each.value);
    else at = json::array({at, each.value});
  }
  return result;
}

json manager_of(const process_manager& who) {
  json result;
  result["kind"] = std::string(to_string(who.kind));
  result["name"] = text_or_null(who.name);
  result["terminal"] = text_or_null(who.terminal);
  result["pid"] = who.process > 0 ? json(who.process) : json();
  result["session"] = text_or_null(who.session);
  result["session_id"] = text_or_null(who.session_id);
  result["session_alive"] = who.session.empty() ? json() : json(who.session_alive);
  result["idle_s"] = who.idle ? json(who.idle->count()) : json();
  result["holds"] = who.holds;
  return result;
}

json process_of(const audit_report& report, const census_entry& entry) {
  const process_info& process = entry.process;
  json result;
  result["pid"] = process.id.pid;
  result["started_at"] = utc_time(process.started_at);
  result["age_s"] =
      std::chrono::duration_cast<std::chrono::seconds>(report.census.taken_at - process.started_at).count();
  result["name"] = entry.name;
  result["uid"] = process.user;
  result["parent"] = process.parent;
  result["state"] = std::string(1, static_cast<char>(process.state));
  result["arguments"] = entry.arguments;
  result["executable"] = text_or_null(entry.executable);
  result["working_directory"] = text_or_null(entry.working_directory.string());
  result["memory_bytes"] = process.resident_bytes;
  result["cpu_ms"] = process.cpu_time.count();
  result["managed_by"] = entry.managed_by.text();
  result["manager"] = manager_of(entry.managed_by);
  result["keep"] = entry.keep;
  if (!entry.difference.empty()) result["difference"] = entry.difference;
  result["evidence"] = facts_of(entry.proof);
  return result;
}

json processes_of(const audit_report& report, const std::vector<census_entry>& entries) {
  json result = json::array();
  for (const census_entry& each : entries) result.push_back(process_of(report, each));
  return result;
}

json ghost_of(const audit_report& report, const ghost& found) {
  json result;
  result["kind"] = std::string(to_string(found.kind));
  result["severity"] = std::string(to_string(found.level));
  result["uid"] = found.user;
  result["program"] = found.program;
  result["headline"] = found.headline;
  result["why"] = found.why;
  result["remedy"] = text_or_null(found.remedy);
  result["memory_bytes"] = found.resident_bytes();
  result["processes"] = processes_of(report, found.processes);
  result["evidence"] = facts_of(found.proof);
  return result;
}

}  // namespace

std::string audit_json(const audit_report& report) {
  json document;
  document["schema"] = json_schema;
  document["host"] = report.host;
  document["taken_at"] = utc_time(report.census.taken_at);
  document["processes"] = report.census.processes;
  document["unseen"] = report.census.unseen;
  document["all_users"] = report.all_users;
  document["user"] = report.user;
  document["complete"] = report.census.complete;
  document["exit_code"] = report.exit_code;
  document["ghosts"] = json::array();
  for (const ghost& each : report.census.ghosts) document["ghosts"].push_back(ghost_of(report, each));
  document["notes"] = json::array();
  for (const note& each : report.census.notes) {
    json one;
    one["kind"] = std::string(to_string(each.kind));
    one["severity"] = std::string(to_string(each.level));
    one["text"] = each.text;
    one["processes"] = processes_of(report, each.processes);
    document["notes"].push_back(std::move(one));
  }
  document["blind_spots"] = json::array();
  for (const blind_spot& each : report.census.blind_spots)
    document["blind_spots"].push_back({{"what", each.what}, {"text", each.text}, {"count", each.count}});
  document["services"] = json::array();
  for (const service_state& each : report.census.services) {
    json pids = json::array();
    for (const process_identity& one : each.processes) pids.push_back(one.pid);
    document["services"].push_back(
        {{"name", each.name}, {"expected", each.expected}, {"found", each.found}, {"pids", std::move(pids)}});
  }
  return dumped(document);
}

}  // namespace tool
