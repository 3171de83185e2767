// instance-guard reap: ends what should not be running.
#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>
#include <string>

#include "census_commands.hpp"
#include "duration_option.hpp"
#include "look_options.hpp"
#include "reap_session.hpp"
#include "subcommands.hpp"

namespace tool {
namespace {

int run_reap(const reap_arguments& arguments, const invocation& call) {
  const auto grace = parse_duration(arguments.grace).value_or(std::chrono::milliseconds(5'000));
  const int ways = (arguments.session.empty() ? 0 : 1) + (arguments.pids.empty() ? 0 : 1) + (arguments.orphans ? 1 : 0);
  if (ways != 1) throw CLI::ValidationError("one of PID..., --orphans or --session ID");
  if (arguments.session.empty()) return reap_ghosts(arguments, grace, call);
  return reap_session(arguments.session, grace, arguments.dry_run);
}

std::string check_pid(const std::string& text) {
  const bool number = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
  return number && text.front() != '0' ? std::string() : "'" + text + "' is no pid";
}

}  // namespace

void add_reap(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<reap_arguments>();
  CLI::App* sub = root.add_subcommand("reap", "End ghosts, or what a session left behind.");
  sub->add_option("pid", arguments->pids, "Ghosts, as audit tells them")->check(check_pid)->type_name("PID");
  sub->add_flag("--orphans", arguments->orphans, "Every orphan that audit tells");
  sub->add_option("--session", arguments->session, "As in `run --session ID`")->type_name("ID");
  sub->add_flag("--dry-run", arguments->dry_run, "Only print what would be ended, and why");
  add_duration_option(*sub, "--grace", arguments->grace, "From SIGTERM to SIGKILL (default 5s)");
  add_census_options(*sub, arguments->census);
  sub->footer(
      "PID and --orphans: takes the census anew and ends only what is a ghost now, by\n"
      "pid, start time and boot, so never a stranger that has got last week's pid; with\n"
      "it all its descendants. Never what audit says to keep, what a service manager\n"
      "would start again, another user's, or this command and those above it.\n"
      "--session: the processes of this user that have INSTANCE_GUARD_SESSION=ID in\n"
      "their environment; no service. What has INSTANCE_GUARD_KEEP=1 stays, always.\n\n"
      "Exit code: 0 none is left, 1 some could not be ended, or are no ghosts.\n\n"
      "Examples:\n"
      "  instance-guard reap --orphans --dry-run\n"
      "  instance-guard reap 88120\n"
      "  instance-guard reap --session 7f3a");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] { call.exit_code = run_reap(*arguments, call); });
}

}  // namespace tool
