// layer 4: whose session a process was started in, by the marks in its environment.
//
// Such marks travel: to a tmux server that an agent was the first to start, to a daemon. So a mark
// alone proves nothing; it tells whom to look for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
      return is("codex", !value("CODEX_SESSION_ID").empty() ? value("CODEX_SESSION_ID") : value("CODEX_THREAD_ID"));
  if (!value("GEMINI_CLI").empty()) return is("gemini", {});
  if (!value("CURSOR_AGENT").empty() || !value("CURSOR_TRACE_ID").empty())
    return is("cursor", value("CURSOR_TRACE_ID"));
  // Emptied by a job that wants something to outlive it.
  if (!value("RUNNER_TRACKING_ID").empty() && value("RUNNER_TRACKING_ID") != "0")
    return is("github", value("RUNNER_TRACKING_ID"));
  if (!value("JENKINS_NODE_COOKIE").empty() && value("JENKINS_NODE_COOKIE") != "dontKillMe")
    return is("jenkins", value("JENKINS_NODE_COOKIE"));
  if (!value("INSTANCE_GUARD_SESSION").empty()) return is("session", value("INSTANCE_GUARD_SESSION"));
  return result;
}

/// The agent that a process is, or empty.
inline std::string agent_of(const census_process& of) {
  if (of.role != process_role::agent) return {};
  const std::string name = executable_name(of);
  for (const std::string_view each :
       {std::string_view(name), of.info->name(), base_name(of.program.path), base_name(of.program.given)})
    if (const std::string_view agent = agent_name(each); !agent.empty()) return std::string(agent);
  return {};
}

/// The agents and sessions that live. Whoever starts the topmost process with a mark has given it
/// that mark: so an agent is known also under a name that nobody has heard of.
inline std::vector<living_agent> find_agents(const census_view& view) {
  std::vector<living_agent> result;
  const auto add = [&](living_agent one) {
    for (const living_agent& each : result)
      if (each.index == one.index && each.agent == one.agent && (each.id == one.id || one.id.empty())) return;
    result.push_back(std::move(one));
  };
  for (const census_process& each : view.all) {
    if (!each.alive() || !each.visible) continue;
    const session_mark mark = mark_of(*each.image);
    if (mark.agent.empty()) continue;
    const census_process* at = &each;
    const census_process* above = view.parent(*at);
    for (int depth = 0; depth < 256 && above != nullptr && mark_of(*above->image).agent == mark.agent; ++depth) {
      at = above;
      above = view.parent(*at);
    }
    if (above == nullptr || above->ended || at->adopted) continue;
    const bool by_id = above->role == process_role::shell || above->role == process_role::session;
    if (by_id && mark.id.empty()) continue;
    add({static_cast<std::size_t>(above - view.all.data()), mark.agent, mark.id, by_id});
  }
  // An agent's own mark is of the one that has started it: its session can't be told by that.
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    if (!view.all[i].alive()) continue;
    if (std::string agent = agent_of(view.all[i]); !agent.empty()) add({i, std::move(agent), {}, false});
    // `instance-guard run --session ID`
    const auto& words = view.all[i].image->arguments;
    if (executable_name(view.all[i]) != "instance-guard") continue;
    for (std::size_t k = 0; k + 1 < words.size(); ++k)
      if (words[k] == "--session") add({i, "session", words[k + 1], true});
  }
  return result;
}

/// Whether the session that a process was started in may still live, somewhere else than above it:
/// in doubt it does.
inline bool session_may_live(const census_view& view, const census_process& of, const session_mark& mark) {
  for (const living_agent& each : view.agents) {
    const census_process& agent = view.all[each.index];
    if (each.agent != mark.agent || &agent == &of) continue;
    if (!mark.id.empty() && !each.id.empty()) {
      if (each.id == mark.id) return true;
      continue;
    }
    if (each.by_id_alone || agent.info->user != of.info->user || agent.info->id.start_time > of.info->id.start_time)
      continue;
    if (agent.info->session == of.info->session) return true;
    if (is_below(of.details->working_directory.path, agent.details->working_directory.path)) return true;
  }
  return false;
}

}  // namespace instance_guard::detail
