// layer 4: whose session a process was started in, by the marks in its environment.
//
// Such marks travel: to a tmux server that an agent was the first to start, to a daemon. So a mark
// alone proves nothing; it tells whom to look for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "census_view.hpp"

namespace instance_guard::detail {

struct session_mark {
  std::string agent = {};  ///< "claude", "codex", ..., "session"; empty: none
  std::string id = {};     ///< what tells this session from others of the agent; may be empty
  bool keep = false;       ///< it says itself that it is meant to stay
};

/// The mark that says most of a process.
inline session_mark mark_of(const process_details& details) {
  session_mark result;
  const auto value = [&](std::string_view name) {
    const std::string* found = details.marker(name);
    return found != nullptr ? std::string_view(*found) : std::string_view();
  };
  result.keep = value("INSTANCE_GUARD_KEEP") == "1";
  const auto is = [&](std::string_view agent, std::string_view id) {
    result.agent = agent;
    result.id = id;
    return result;
  };
  if (!value("CLAUDECODE").empty() || !value("CLAUDE_CODE_ENTRYPOINT").empty() ||
      !value("CLAUDE_CODE_SESSION_ID").empty())
    return is("claude", value("CLAUDE_CODE_SESSION_ID"));
  for (const process_variable& each : details.markers)
    if (starts_with(each.name, "CODEX_"))
      return is("codex", !value("CODEX_SESSION_ID").empty() ? value("CODEX_SESSION_ID")
                                                            : value("CODEX_THREAD_ID"));
  if (!value("GEMINI_CLI").empty()) return is("gemini", {});
  if (!value("CURSOR_AGENT").empty() || !value("CURSOR_TRACE_ID").empty())
    return is("cursor", value("CURSOR_TRACE_ID"));
  // Emptied by a job that wants something to outlive it.
  if (!value("RUNNER_TRACKING_ID").empty() && value("RUNNER_TRACKING_ID") != "0")
    return is("github", value("RUNNER_TRACKING_ID"));
  if (!value("JENKINS_NODE_COOKIE").empty() && value("JENKINS_NODE_COOKIE") != "dontKillMe")
    return is("jenkins", value("JENKINS_NODE_COOKIE"));
  if (!value("INSTANCE_GUARD_SESSION").empty())
    return is("session", value("INSTANCE_GUARD_SESSION"));
  return result;
}

/// The agent that a process is, or empty.
inline std::string agent_of(const census_process& of) {
  if (of.role != process_role::agent) return {};
  const std::string name = executable_name(of);
  for (const std::string_view each : {std::string_view(name), of.info->name(),
                                      base_name(of.program.path), base_name(of.program.given)})
    if (const std::string_view agent = agent_name(each); !agent.empty()) return std::string(agent);
  return {};
}

/// Whether the session that a process was started in may still live, somewhere else than above it:
/// in doubt it does.
inline bool session_may_live(const census_view& view, const census_process& of,
                             const session_mark& mark) {
  for (const census_process& each : view.all) {
    if (!each.alive() || &each == &of) continue;
    // `instance-guard run --session ID` itself.
    if (!mark.id.empty() && executable_name(each) == "instance-guard") {
      const auto& words = each.details.arguments;
      for (std::size_t i = 0; i + 1 < words.size(); ++i)
        if (words[i] == "--session" && words[i + 1] == mark.id) return true;
    }
    if (agent_of(each) != mark.agent) continue;
    if (each.info->user != of.info->user || each.info->id.start_time > of.info->id.start_time)
      continue;
    if (!mark.id.empty()) {
      const session_mark theirs = mark_of(each.details);
      if (!theirs.id.empty() && theirs.agent == mark.agent) {
        if (theirs.id == mark.id) return true;
        continue;
      }
    }
    if (each.info->session == of.info->session) return true;
    if (is_below(of.details.working_directory.path, each.details.working_directory.path))
      return true;
  }
  return false;
}

}  // namespace instance_guard::detail
