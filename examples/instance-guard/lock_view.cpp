#include "lock_view.hpp"

#include <sys/stat.h>

#include <cstddef>
#include <string_view>
#include <utility>

#include "process_text.hpp"
#include "text.hpp"

namespace tool {

using instance_guard::lock_record;
using instance_guard::lock_scope;
using instance_guard::lock_state;
using instance_guard::lock_status;
using std::chrono::system_clock;

namespace {

bool same_holder(const lock_status& one, const lock_status& other) {
  return one.holder && other.holder && one.state == lock_state::held && other.state == lock_state::held &&
         one.holder->process.complete() && one.holder->process == other.holder->process;
}

json optional_text(const std::string& text) { return text.empty() ? json() : json(text); }

json optional_time(const std::optional<system_clock::time_point>& at) { return at ? json(utc_time(*at)) : json(); }

json holder_json(const lock_status& status) {
  const lock_record& record = *status.holder;
  json result;
  result["pid"] = record.process.pid;
  result["warden"] = record.warden ? json(record.warden.pid) : json();
  result["acquired_at"] = optional_time(held_since(status));
  result["started_from"] = record.started_from;
  result["version"] = optional_text(record.version);
  result["user"] = record.user;
  result["uid"] = record.uid;
  result["executable"] = record.executable;
  result["arguments"] = record.arguments;
  result["working_directory"] = record.working_directory.string();
  result["grace_ms"] = record.grace.count();
  return result;
}

}  // namespace

std::optional<system_clock::time_point> ended_at(const lock_status& status) {
  // A warden dates the file when it sees its owner end.
  const bool over = status.state == lock_state::abandoned || status.state == lock_state::cleaning_up;
  struct stat facts = {};
  if (!over || !status.holder || !status.holder->warden || ::stat(status.path.c_str(), &facts) != 0) return {};
  return system_clock::time_point(std::chrono::seconds(facts.st_mtime));
}

lock_view view_of(lock_status status, const std::vector<lock_status>& all) {
  lock_view view;
  for (const instance_guard::process_identity& each : status.children) {
    child_view child{each, command_of(each.pid)};
    // Between the list and the look it may have ended, and its pid be somebody else's.
    if (instance_guard::is_alive(each)) view.children.push_back(std::move(child));
  }
  for (const lock_status& each : all)
    if (each.name != status.name && same_holder(each, status)) view.also.push_back(each.name);
  view.ended_at = tool::ended_at(status);
  view.status = std::move(status);
  return view;
}

std::optional<system_clock::time_point> held_since(const lock_status& status) {
  if (!status.holder || status.holder->acquired_at.time_since_epoch().count() == 0) return {};
  return status.holder->acquired_at;
}

const char* state_text(lock_state state) {
  switch (state) {
    case lock_state::free: return "free";
    case lock_state::held: return "held";
    case lock_state::cleaning_up: return "cleaning up";
    case lock_state::abandoned: return "abandoned";
  }
  return "unknown";
}

const char* scope_text(lock_scope scope) { return scope == lock_scope::host ? "host" : "user"; }

std::string as_of_tool(std::string text) {
  constexpr std::string_view option = "lock_options.directory";
  std::size_t at = text.find(option);
  if (at == std::string::npos) return text;
  std::size_t end = text.find('\n', at);
  const std::string_view before = std::string_view(text).substr(0, at);
  for (const std::string_view joint : {", or ", "   or ", "; "})
    if (before.ends_with(joint)) return text.erase(at - joint.size(), end - at + joint.size());
  text.erase(at, option.size() + 4);  // " on " a file system that can be written
  at = text.find(", or allow_network_file_system", at);
  end = text.find('\n', at);
  return at == std::string::npos ? text : text.erase(at, end - at);
}

lock_fault_text fault_of(const std::string& explanation, std::error_code why) {
  if (explanation.empty()) return {why.message(), {}};
  const std::string text = as_of_tool(explanation);
  constexpr std::string_view label = "\n  cure     ";
  const std::size_t end = text.find(label);
  if (end == std::string::npos) return {shown(text), {}};
  return {shown(text.substr(0, end)), shown(text.substr(end + label.size()))};
}

json unknown_json(const std::string& name, const lock_fault_text& fault) {
  json result = {{"name", name}, {"state", "unknown"}, {"fault", fault.fact}};
  if (!fault.cure.empty()) result["cure"] = fault.cure;
  return result;
}

json to_json(const lock_view& view) {
  const lock_status& status = view.status;
  if (!status.explanation.empty()) return unknown_json(status.name, fault_of(status.explanation, {}));
  json result;
  result["name"] = status.name;
  result["scope"] = scope_text(status.scope);
  result["state"] = status.state == lock_state::cleaning_up ? "cleaning_up" : state_text(status.state);
  result["path"] = status.path.string();
  result["holder"] = status.holder ? holder_json(status) : json();
  result["ended_at"] = optional_time(view.ended_at);
  result["replaced_code"] = status.replaced_code;
  result["replaced_at"] = optional_time(status.replaced_at);
  result["also_holds"] = view.also;
  result["children"] = json::array();
  for (const child_view& each : view.children)
    result["children"].push_back({{"pid", each.process.pid}, {"command", each.command}});
  result["refusals"] = json::array();
  for (const instance_guard::refusal& each : status.refusals)
    result["refusals"].push_back({{"at", utc_time(each.at)}, {"pid", each.pid}, {"started_from", each.started_from}});
  result["other_users"] = json::array();
  for (const instance_guard::other_holder& each : status.others)
    result["other_users"].push_back(
        {{"uid", each.uid}, {"user", each.user}, {"pid", each.pid > 0 ? json(each.pid) : json()}});
  return result;
}

}  // namespace tool
