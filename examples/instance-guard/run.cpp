// instance-guard run: a command whose whole tree ends with it, and perhaps a name that it holds.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <instance_guard/instance_guard.hpp>
#include <memory>
#include <string>
#include <system_error>

#include "exit_codes.hpp"
#include "run_options.hpp"
#include "subcommands.hpp"

namespace tool {
namespace {

using instance_guard::process_group;

constexpr char help_text[] =
    "The command stands behind --. Its exit status is the tool's; 128+n when signal n\n"
    "ended it, 124 on timeout, 75 when refused, 126 and 127 as the shell, 125 for a\n"
    "fault of the tool.\n"
    "\n"
    "Examples:\n"
    "  instance-guard run -- make test                  nothing of it stays behind\n"
    "  instance-guard run --name shiva -- python3 shiva/main.py\n"
    "  instance-guard run --name shiva --name wallet-0x39a1 --wait 1m -- ./shiva\n"
    "  instance-guard run --timeout 10m --grace 2s -- pytest -n 8\n"
    "  instance-guard run --session \"$ID\" -- claude";

int run(const run_settings& settings, const std::vector<std::string>& command) {
  std::error_code ec;
  process_group group({.grace = settings.grace, .stop_signal = settings.stop_signal}, ec);
  instance_guard::child child;
  if (!ec) child = group.spawn(command, ec);
  if (ec) {
    std::fprintf(stderr, "instance-guard: cannot run '%s': %s\n", command.front().c_str(), ec.message().c_str());
    return ec == std::errc::no_such_file_or_directory ? exit_not_found : exit_cannot_execute;
  }
  return child.wait(ec).shell_code();
}

}  // namespace

void add_run(CLI::App& root, invocation& call) {
  auto settings = std::make_shared<run_settings>();
  CLI::App* run_command = root.add_subcommand("run", "run a command whose whole tree ends with it");
  run_command->footer(help_text);
  add_run_options(*run_command, *settings);
  run_command->callback([settings, &call] {
    if (!call.has_command || call.command.empty() || call.command.front().empty())
      throw CLI::ValidationError("run", "a command is missing: instance-guard run [OPTION]... -- COMMAND");
    call.exit_code = run(*settings, call.command);
  });
}

}  // namespace tool
