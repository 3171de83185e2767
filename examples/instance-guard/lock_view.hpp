// What status and list know of a name: the library's answer, and what goes with it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <instance_guard/pid_lockfile.hpp>

#include "json.hpp"

namespace tool {

/// One child of a holder.
struct child_view {
  instance_guard::process_identity process = {};
  std::string command = {};  ///< escaped
};

struct lock_view {
  instance_guard::lock_status status = {};
  std::vector<child_view> children = {};
  std::vector<std::string> also = {};                                  ///< other names of the same process and scope
  std::optional<std::chrono::system_clock::time_point> ended_at = {};  ///< as ended_at() says
};

/// Completes a status; `all` are the names of the same scope.
lock_view view_of(instance_guard::lock_status status, const std::vector<instance_guard::lock_status>& all);

/// When its holder ended, of a name that is abandoned or cleaning up, if anybody saw it.
std::optional<std::chrono::system_clock::time_point> ended_at(const instance_guard::lock_status& status);

/// When its holder took it; empty where that is not known (a holder seen by its socket alone).
std::optional<std::chrono::system_clock::time_point> held_since(const instance_guard::lock_status& status);

const char* state_text(instance_guard::lock_state state);  ///< "cleaning up"
const char* scope_text(instance_guard::lock_scope scope);  ///< "user", "host"

json to_json(const lock_view& view);

/// Why it can't be told who has a name, and what helps; escaped.
struct lock_fault_text {
  std::string fact = {};
  std::string cure = {};  ///< may be empty
};
lock_fault_text fault_of(const std::string& explanation, std::error_code why);

/// The library's cures speak of its options; the tool has none for the directory of a start.
std::string as_of_tool(std::string text);

/// "unknown", with the fault: what JSON has of such a name.
json unknown_json(const std::string& name, const lock_fault_text& fault);

}  // namespace tool
