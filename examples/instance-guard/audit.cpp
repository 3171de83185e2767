// instance-guard audit: which processes of this host should not be running.
#include <pwd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <instance_guard/pid_lockfile.hpp>

#include "audit_report.hpp"
#include "census_options.hpp"
#include "helper_programs.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

struct audit_arguments {
  census_arguments census = {};
  bool json = false;
  bool discord = false;
  bool nagios = false;
  bool only_ghosts = false;
  bool verbose = false;
  std::string prometheus = {};
  std::string webhook_file = {};
};

constexpr char webhook_variable[] = "INSTANCE_GUARD_WEBHOOK";

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "this host";
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

/// The names that are held; what can't be read is left out, as it is no part of the census.
std::vector<lock_view> locks_now() {
  std::vector<lock_view> result;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    lock_options options;
    options.scope = scope;
    std::error_code ec;
    const std::vector<lock_status> all = list_locks(options, ec);
    for (const lock_status& each : all) result.push_back(view_of(each, all));
  }
  return result;
}

audit_report take_report(const audit_arguments& arguments) {
  audit_report report;
  report.census = take_census_now(arguments.census);
  if (arguments.discord || !arguments.prometheus.empty()) report.locks = locks_now();
  report.host = host_name();
  report.user = user_name();
  report.all_users = arguments.census.all_users;
  report.verbose = arguments.verbose;
  report.exit_code = exit_code_of(report.census);
  return report;
}

void tell_discord(const audit_arguments& arguments, const audit_report& report) {
  if (arguments.only_ghosts && report.exit_code == 0) return;
  const std::vector<std::string> payloads = audit_discord(report);
  const char* variable = std::getenv(webhook_variable);
  const std::string address = !arguments.webhook_file.empty()
                                  ? read_webhook_file(arguments.webhook_file)
                                  : std::string(variable != nullptr ? variable : "");
  if (address.empty()) {
    for (const std::string& each : payloads) print(each + "\n");
    return;
  }
  // What is started to post gets it by a pipe; nobody else is to inherit it.
  ::unsetenv(webhook_variable);
  post(address, payloads);
  print("posted " + counted(payloads.size(), "message", "messages") + "\n");
}

int run_audit(const audit_arguments& arguments) {
  const audit_report report = take_report(arguments);
  if (!arguments.prometheus.empty())
    write_prometheus(arguments.prometheus, audit_prometheus(report));
  if (arguments.json) print(audit_json(report));
  else if (arguments.discord) tell_discord(arguments, report);
  else if (arguments.nagios) print(audit_nagios(report));
  else if (arguments.prometheus.empty()) print(audit_text(report, columns() < 120 ? 80 : 120));
  return report.exit_code;
}

/// A monitor knows only four exit codes: a fault of the audit is the last of them.
int run_for_nagios(const audit_arguments& arguments) {
  try {
    return run_audit(arguments);
  } catch (const std::exception& error) {
    print("GHOSTS UNKNOWN - " + shown(error.what()) + "\n");
    return 3;
  }
}

void check(const audit_arguments& arguments) {
  if (arguments.json + arguments.discord + arguments.nagios > 1)
    throw CLI::ValidationError("of --json, --discord and --nagios only one");
  const std::string& path = arguments.prometheus;
  if (!path.empty() && (path.size() < 6 || path.substr(path.size() - 5) != ".prom"))
    throw CLI::ValidationError("--prometheus: the collector reads only names that end in .prom");
  if (!arguments.webhook_file.empty() && !arguments.discord)
    throw CLI::ValidationError("--webhook-file goes with --discord");
  if (arguments.only_ghosts && !arguments.discord)
    throw CLI::ValidationError("--only-ghosts goes with --discord");
}

}  // namespace

void add_audit(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<audit_arguments>();
  CLI::App* sub = root.add_subcommand("audit", "Find the processes that should not be running.");
  sub->add_flag("--json", arguments->json, "For machines");
  sub->add_option("--prometheus", arguments->prometheus,
                  "Write gauges into FILE.prom, for node_exporter; beside another output, or alone")
      ->type_name("FILE");
  sub->add_flag("--discord", arguments->discord,
                "Messages for a webhook, one a line; posted if the address is known");
  sub->add_option("--webhook-file", arguments->webhook_file,
                  "File with the webhook's address, which only its owner can read (default: "
                  "INSTANCE_GUARD_WEBHOOK)")
      ->type_name("FILE");
  sub->add_flag("--only-ghosts", arguments->only_ghosts, "No message when all is well");
  sub->add_flag("--nagios", arguments->nagios, "One line with performance data");
  add_audit_options(*sub, arguments->census);
  add_census_options(*sub, arguments->census);
  sub->add_flag("-v,--verbose", arguments->verbose, "Every process, with its command and the facts");
  sub->footer(
      "zombie: finished, never reaped. orphan: alive, nobody supervises it. duplicate:\n"
      "two of what should run once. stale: runs code that has since been replaced.\n"
      "Only looks: nothing is signalled, and nothing of what is looked at is executed.\n\n"
      "Exit code: 2 critical, else 1 a warning, else 3 not all that was asked for\n"
      "could be seen, else 0; 125 wrong arguments.\n\n"
      "Examples:\n"
      "  instance-guard audit\n"
      "  instance-guard audit --service 'shiva=shiva/main\\.py'\n"
      "  instance-guard audit --json | jq '.ghosts[].headline'\n"
      "  instance-guard audit --discord --webhook-file /etc/instance-guard/webhook");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] {
    check(*arguments);
    call.exit_code = arguments->nagios ? run_for_nagios(*arguments) : run_audit(*arguments);
  });
}

}  // namespace tool
