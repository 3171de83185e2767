// instance-guard audit: which processes of this host should not be running.
#include <CLI/CLI.hpp>

#include <exception>
#include <memory>
#include <set>
#include <string>

#include "census_commands.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

void check(const audit_arguments& arguments) {
  if (arguments.json + arguments.discord + arguments.nagios > 1)
    throw CLI::ValidationError("of --json, --discord and --nagios only one");
  std::set<std::string> names;  // a label twice makes the collector drop the whole file
  for (const std::string& each : arguments.census.services)
    if (const std::string name = each.substr(0, each.find('=')); !names.insert(name).second)
      throw CLI::ValidationError("--service: '" + name + "' is declared twice");
  if (!arguments.webhook_file.empty() && !arguments.discord)
    throw CLI::ValidationError("--webhook-file goes with --discord");
  if (arguments.only_ghosts && !arguments.discord) throw CLI::ValidationError("--only-ghosts goes with --discord");
}

/// A monitor knows only four exit codes: a fault of the audit is the last of them.
int audit_for_nagios(const audit_arguments& arguments, const invocation& call) {
  try {
    return audit(arguments, call);
  } catch (const std::exception& error) {
    print("GHOSTS UNKNOWN - " + shown(error.what()) + "\n");
    return 3;
  }
}

}  // namespace

void add_audit(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<audit_arguments>();
  CLI::App* sub = root.add_subcommand("audit", "Find the processes that should not be running.");
  sub->add_flag("--json", arguments->json, "For machines");
  sub->add_option("--prometheus", arguments->prometheus,
                  "Write gauges into FILE.prom, for node_exporter; beside another output, or alone")
      ->check([](const std::string& path) {
        return path.size() > 5 && path.ends_with(".prom") ? "" : "the collector reads only names that end in .prom";
      })
      ->type_name("FILE");
  sub->add_flag("--discord", arguments->discord,
                "Messages for a webhook, one a line; posted if the address is known. Keeps when the "
                "last ghost was seen");
  sub->add_option("--webhook-file", arguments->webhook_file,
                  "File with the webhook's address, which only its owner can read (default: "
                  "INSTANCE_GUARD_WEBHOOK)")
      ->check([](const std::string& path) { return path.empty() ? "its name is empty" : ""; })
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
    call.exit_code = arguments->nagios ? audit_for_nagios(*arguments, call) : audit(*arguments, call);
  });
}

}  // namespace tool
