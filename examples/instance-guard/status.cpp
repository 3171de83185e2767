// instance-guard status NAME…: who has it, since when, from where.
#include <pwd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lock_view.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

using instance_guard::lock_options;
using instance_guard::lock_record;
using instance_guard::lock_scope;
using instance_guard::lock_state;
using instance_guard::lock_status;

struct status_arguments {
  std::vector<std::string> names = {};
  look_options look = {};
  bool as_json = false;
};

constexpr int unknown_code = 4;

int code_of(lock_state state) {
  switch (state) {
    case lock_state::held:
    case lock_state::cleaning_up: return 0;
    case lock_state::abandoned: return 1;
    case lock_state::free: return 3;
  }
  return unknown_code;
}

int colour_of(const lock_status& status) {
  if (status.state == lock_state::abandoned) return 31;
  return status.state == lock_state::held && !status.replaced_code ? 32 : 33;
}

std::string own_user() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr && entry->pw_name != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

std::string title(const lock_view& view) {
  const lock_status& status = view.status;
  const std::string name = coloured(status.name, colour_of(status));
  std::string fact = state_text(status.state);
  if (status.state == lock_state::held) {
    if (const auto since = held_since(status)) fact += ", " + age_since(*since);
  } else if (view.ended_at) {
    fact += ", for " + age_since(*view.ended_at);
  }
  const std::size_t pad = status.name.size() < 10 ? 10 - status.name.size() : 2;
  const std::string scope =
      status.scope == lock_scope::user ? "scope user (" + shown(own_user()) + ")" : std::string("scope host");
  const std::size_t used = status.name.size() + pad + fact.size();
  const std::size_t end = 77;
  if (used + 2 + scope.size() > end) return name + "\n" + row("state", fact) + row("scope", scope.substr(6));
  return name + std::string(pad, ' ') + fact + std::string(end - used - scope.size(), ' ') + scope + "\n";
}

std::string holder_row(const lock_view& view) {
  const lock_status& status = view.status;
  if (!status.holder) {
    if (status.state == lock_state::free) return {};
    return row("holder", "not known: its record can't be read");
  }
  const lock_record& record = *status.holder;
  std::string text = "pid " + std::to_string(record.process.pid);
  const auto here = instance_guard::process_identity::self().pid_namespace;
  const auto there = record.process.pid_namespace;
  if (here != 0 && there != 0 && here != there) text += " of another pid namespace";
  if (status.state == lock_state::cleaning_up)
    text += ", which has ended" +
            (record.warden ? "; pid " + std::to_string(record.warden.pid) + " ends its children" : std::string());
  if (status.state == lock_state::abandoned) text += ", which did not end cleanly";
  if (!record.version.empty()) text += ", version " + shown(record.version);
  if (const auto since = held_since(status)) text += ", started " + local_time(*since);
  return row("holder", text);
}

std::string children_row(const lock_view& view) {
  if (view.children.empty()) return {};
  constexpr std::size_t most = 12;
  constexpr std::size_t columns = 60;  // of one command: a row is about several
  std::string text = std::to_string(view.children.size()) + ":";
  for (std::size_t i = 0; i < view.children.size() && i < most; ++i)
    text += (i == 0 ? " " : ", ") + std::to_string(view.children[i].process.pid) + " " +
            cut(view.children[i].command, columns);
  if (view.children.size() > most) text += ", and " + std::to_string(view.children.size() - most) + " more (--json)";
  return row("children", text);
}

std::string refused_row(const lock_status& status) {
  if (status.refusals.empty()) return {};
  const instance_guard::refusal& last = status.refusals.back();
  return row("refused", counted(status.refusals.size(), "start, ", "starts, the last ") + age_since(last.at) +
                            " ago: " + shown(last.started_from) + ", pid " + std::to_string(last.pid));
}

std::string others_row(const lock_status& status) {
  std::string text;
  for (const instance_guard::other_holder& each : status.others) {
    if (!text.empty()) text += ", ";
    text += "user " + shown(each.user);
    if (each.pid > 0) text += ", pid " + std::to_string(each.pid);
  }
  return text.empty() ? text : row("others", "also held by " + text + " (another one)");
}

std::string in_words(const lock_view& view) {
  const lock_status& status = view.status;
  std::string text = title(view) + holder_row(view);
  if (status.holder) {
    const lock_record& record = *status.holder;
    text += row("started", record.started_from.empty() ? "unknown" : shown(record.started_from));
    std::string command = command_line(record.arguments);
    if (command.empty()) command = shown(record.executable);
    if (!record.working_directory.empty()) command += "  (in " + shown(record.working_directory.string()) + ")";
    text += row("command", command);
  }
  if (status.replaced_at)
    text += row("code", "REPLACED " + age_since(*status.replaced_at) + " ago; restart to run what is on disk");
  if (!view.also.empty()) {
    std::string names;
    for (const std::string& each : view.also) names += (names.empty() ? "" : ", ") + each;
    text += row("also", names);
  }
  text += children_row(view) + refused_row(status) + others_row(status);
  if (status.state == lock_state::abandoned) text += row("next", "start it: the next start takes the name over");
  return text;
}

/// The name as it is in each scope that was asked for; a free one only where it is nowhere else.
std::vector<lock_view> look_up(const std::string& name, const status_arguments& arguments, std::error_code& ec,
                               lock_fault_text& why) {
  std::vector<lock_view> result;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    if (!arguments.look.wants(scope)) continue;
    const lock_options options = arguments.look.in(scope);
    std::error_code fault;
    lock_status status = query_lock(name, options, fault);
    if (fault) {
      ec = fault;
      why = fault_of(status.explanation, fault);
      return {};
    }
    std::error_code unlisted;  // only "also" is less then
    std::vector<lock_status> all;
    if (status.state == lock_state::held) all = list_locks(options, unlisted);
    result.push_back(view_of(std::move(status), all));
  }
  if (result.size() > 1) {
    const auto is_free = [](const lock_view& each) { return each.status.state == lock_state::free; };
    if (!is_free(result[0]) || !is_free(result[1])) std::erase_if(result, is_free);
    else result.pop_back();
  }
  return result;
}

int run_status(const status_arguments& arguments) {
  int worst = 0;
  std::string text;
  json all = json::array();
  for (const std::string& name : arguments.names) {
    std::error_code ec;
    lock_fault_text why;
    const std::vector<lock_view> views = look_up(name, arguments, ec, why);
    if (ec == instance_guard::errc::invalid_name)
      throw CLI::ValidationError("\"" + shown(name) + "\": " + ec.message());
    if (ec) {
      worst = std::max(worst, unknown_code);
      text += coloured(name, 33) + "  unknown: " + why.fact + "\n";
      if (!why.cure.empty()) text += "  cure      " + why.cure + "\n";  // whole: it can be pasted
      all.push_back(unknown_json(name, why));
    }
    for (const lock_view& each : views) {
      worst = std::max(worst, code_of(each.status.state));
      text += in_words(each);
      all.push_back(to_json(each));
    }
  }
  if (arguments.as_json) {
    json document;
    document["schema"] = json_schema;
    if (all.size() == 1) document.update(all[0]);
    else document["names"] = std::move(all);
    print(dumped(document));
  } else {
    print(text);
  }
  return worst;
}

}  // namespace

void add_status(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<status_arguments>();
  CLI::App* sub = root.add_subcommand("status", "Say who has a name: since when, from where, with what children.");
  sub->add_option("name", arguments->names, "What must exist once: shiva, wallet-0x39a1")
      ->required()
      ->type_name("NAME");
  add_look_options(*sub, arguments->look);
  sub->add_flag("--json", arguments->as_json, "For machines");
  sub->footer(
      "Exit code: 0 held or cleaning up, 1 abandoned (its holder did not end cleanly),\n"
      "3 free, 4 unknown; of several names the worst.\n\n"
      "Examples:\n"
      "  instance-guard status shiva\n"
      "  instance-guard status shiva foresight || echo 'not all of them run'\n"
      "  instance-guard status --json shiva | jq -r .holder.pid");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] { call.exit_code = run_status(*arguments); });
}

}  // namespace tool
