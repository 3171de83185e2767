// instance-guard stop NAME: makes its holder leave, and waits until the name is free.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "duration_option.hpp"
#include "exit_codes.hpp"
#include "lock_view.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

using instance_guard::lock_record;
using instance_guard::lock_scope;
using instance_guard::lock_state;
using instance_guard::lock_status;
using instance_guard::process_handle;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int still_held = 1;
constexpr int not_known = 4;

struct stop_arguments {
  std::string name = {};
  look_options look = {};
  std::string grace = {};
  bool force = false;
};

/// One line to stderr, and on a terminal a second one: what to type.
void say(const std::string& fact, const std::string& next = {}) {
  std::string text = fact + "\n";
  if (!next.empty() && ::isatty(STDERR_FILENO) != 0) text += "  next     " + next + "\n";
  std::fputs(text.c_str(), stderr);
}

lock_status look_at(const stop_arguments& arguments, lock_scope scope, std::error_code& ec) {
  return query_lock(arguments.name, arguments.look.in(scope), ec);
}

/// The scope in which the name is taken; both are looked at unless one was asked for.
lock_status find(const stop_arguments& arguments, std::error_code& ec) {
  lock_status found;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    if (!arguments.look.wants(scope)) continue;
    lock_status status = look_at(arguments, scope, ec);
    if (ec) return status;
    const bool first = scope == lock_scope::user || !arguments.look.wants(lock_scope::user);
    const bool busy = status.state == lock_state::held || status.state == lock_state::cleaning_up;
    if (first || busy) found = std::move(status);
    if (busy) break;
  }
  return found;
}

std::string holder_text(const lock_record& record) {
  std::string command = command_line(record.arguments);
  if (command.empty()) command = shown(record.executable);
  return "pid " + std::to_string(record.process.pid) +
         (command.empty() ? std::string() : " (" + cut(command, 200) + ")");
}

/// "2 children: 51901 feed --ws, 51940 python3"
std::string children_text(const std::vector<child_view>& children) {
  std::string text = counted(children.size(), "child", "children");
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < children.size() && i < most; ++i)
    text += (i == 0 ? ": " : ", ") + std::to_string(children[i].process.pid) + " " + cut(children[i].command, 60);
  if (children.size() > most) text += ", and " + std::to_string(children.size() - most) + " more";
  return text;
}

/// A warden that somebody stopped would keep the name for ever. The record of another user may
/// name anybody.
void continue_warden(const lock_status& status) {
  std::error_code ec;
  if (!status.holder || !status.holder->warden || status.holder->uid != ::geteuid() || status.scope != lock_scope::user)
    return;
  process_handle warden = process_handle::open(status.holder->warden, ec);
  if (!ec) warden.signal(SIGCONT, ec);
}

/// Waits until the name is nobody's, or another's than `before`.
lock_status wait_until_free(const stop_arguments& arguments, const lock_status& before, std::error_code& ec) {
  const milliseconds grace = before.holder ? before.holder->grace : milliseconds(5'000);
  const milliseconds limit = std::min(grace, milliseconds(86'400'000)) + milliseconds(10'000);
  const auto end = steady_clock::now() + limit;
  bool told = false;
  for (lock_status now;;) {
    now = look_at(arguments, before.scope, ec);
    const bool same = now.state == lock_state::cleaning_up ||
                      (now.state == lock_state::held && now.holder && before.holder &&
                       now.holder->process == before.holder->process) ||
                      (now.state == lock_state::held && !now.holder);
    if (ec || !same || steady_clock::now() >= end) return now;
    continue_warden(now);
    if (!told && ::isatty(STDERR_FILENO) != 0 && !now.children.empty())
      say(now.name + ": waiting for " + counted(now.children.size(), "child", "children") + " to end, at most " +
          age(std::chrono::ceil<std::chrono::seconds>(limit)));
    told = told || !now.children.empty();
    std::this_thread::sleep_for(milliseconds(10));
  }
}

/// What stands in the way of the name, or that it is free; the exit code.
int conclude(const lock_status& now, const lock_view& before) {
  const std::string& name = now.name;
  if (now.state == lock_state::cleaning_up) {
    const lock_view left = view_of(now, {});
    say(name + ": not free yet: " + children_text(left.children) + " of the last holder left",
        "instance-guard status " + name);
    return still_held;
  }
  if (now.state == lock_state::held) {
    say(name + ": " + (now.holder ? holder_text(*now.holder) : "somebody else") + " has the name now",
        "instance-guard status " + name);
    return still_held;
  }
  for (const instance_guard::other_holder& each : before.status.others)
    print(name + ": user " + shown(each.user) + " holds one as well" +
          (each.pid > 0 ? ", pid " + std::to_string(each.pid) : "") + "; it is another one\n");
  return 0;
}

int refuse(const std::string& explanation, std::error_code ec, const stop_arguments& arguments) {
  const std::size_t newline = explanation.find('\n');
  std::string fact = explanation.empty() ? ec.message() : explanation.substr(0, newline);
  const bool refused = ec == instance_guard::errc::managed_holder || ec == instance_guard::errc::already_running;
  const int code = refused ? static_cast<int>(exit_refused) : still_held;
  fact = shown(fact) + " (exit " + std::to_string(code) + ")";
  std::string cure;
  if (newline != std::string::npos) {
    cure = explanation.substr(newline + 1);
    if (const std::size_t at = cure.find("cure "); at != std::string::npos) cure.erase(0, at + 5);
    cure.erase(0, cure.find_first_not_of(' '));
  }
  if (ec == instance_guard::errc::managed_holder && !cure.empty()) {
    // The one line of a log has to say it as well.
    say(fact + "; stop it by: " + shown(cure),
        "instance-guard stop --force " + arguments.name + "   (it will be started again)");
  } else {
    say(fact, shown(cure));
  }
  return code;
}

int run_stop(const stop_arguments& arguments) {
  instance_guard::stop_options options;
  options.directory = arguments.look.directory;
  options.managed = arguments.force;
  if (!arguments.grace.empty()) options.grace = parse_duration(arguments.grace);
  std::error_code ec;
  lock_status found = find(arguments, ec);
  if (ec == instance_guard::errc::invalid_name)
    throw CLI::ValidationError("'" + shown(arguments.name) + "': " + ec.message());
  if (ec) {
    const lock_fault_text why = fault_of(found.explanation, ec);
    say(arguments.name + ": can't tell who has it: " + why.fact + (why.cure.empty() ? "" : "; cure: " + why.cure));
    return not_known;
  }
  const lock_view before = view_of(std::move(found), {});
  const lock_status& status = before.status;
  const std::string& name = status.name;
  if (status.state == lock_state::free || status.state == lock_state::abandoned) {
    print(name + ": nobody has it" +
          (status.holder
               ? "; the last holder, pid " + std::to_string(status.holder->process.pid) + ", did not end cleanly"
               : std::string()) +
          "\n");
    return conclude(status, before);
  }
  std::string done;
  if (status.state == lock_state::held) {
    options.scope = status.scope;
    const instance_guard::stop_result result = stop_holder(name, options, ec);
    if (ec) return refuse(result.explanation, ec, arguments);
    if (result.ended && result.holder) done = (result.killed ? "killed " : "stopped ") + holder_text(*result.holder);
  }
  const lock_status now = wait_until_free(arguments, status, ec);
  if (ec) throw std::system_error(ec, name);
  if (!before.children.empty() && now.state != lock_state::cleaning_up)
    done += (done.empty() ? "ended " : " and ") + children_text(before.children);
  if (done.empty()) done = "its holder had ended by itself";
  print(name + ": " + done + "\n");
  return conclude(now, before);
}

}  // namespace

void add_stop(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<stop_arguments>();
  CLI::App* sub = root.add_subcommand("stop", "End the holder of a name, with its children.");
  sub->add_option("name", arguments->name, "What its holder is to let go")->required()->type_name("NAME");
  add_duration_option(*sub, "--grace", arguments->grace, "From SIGTERM to SIGKILL; else its own and 2s");
  sub->add_flag("--force", arguments->force, "Also if a service manager will start it again");
  add_look_options(*sub, arguments->look);
  sub->footer(
      "SIGTERM, the holder's grace, SIGKILL; then it waits until the name is free: its\n"
      "children are gone as well. Only what is proven to be the holder is signalled.\n\n"
      "Exit code: 0 nobody has the name, 1 it could not be freed, 4 unknown,\n"
      "75 refused: a service manager would start it again, or it is above this command.\n\n"
      "Examples:\n"
      "  instance-guard stop shiva\n"
      "  instance-guard stop shiva --grace 30s && make deploy");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] { call.exit_code = run_stop(*arguments); });
}

}  // namespace tool
