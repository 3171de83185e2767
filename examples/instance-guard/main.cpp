// instance-guard: one instance of a program, whose children die with it; for programs that can't be
// recompiled. See docs/tool.md.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <unistd.h>
#include <vector>

#include "command_line.hpp"
#include "exit_codes.hpp"
#include "manual.hpp"
#include "run_options.hpp"
#include "subcommands.hpp"

namespace {

constexpr char examples[] =
    "Examples:\n"
    "  instance-guard run --name shiva -- python3 shiva/main.py\n"
    "  instance-guard run --timeout 10m -- pytest -n 8\n"
    "  instance-guard status shiva\n"
    "  instance-guard audit\n"
    "\n"
    "instance-guard run --help says more of one subcommand.";

/// Everything has been said and ended when it returns: what runs at exit would only take time.
[[noreturn]] int run_now(const tool::run_settings& settings, const std::vector<std::string>& command) {
  try {
    ::_exit(tool::run(settings, command));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "instance-guard run: %s\n", error.what());
  }
  std::exit(tool::exit_fault);
}

}  // namespace

int main(int count, char** arguments) {
  tool::invocation call;
  tool::split(count, arguments, call);
  if (call.has_command && !call.command.empty() && !call.command.front().empty()) {
    tool::run_settings settings;
    if (tool::read_plain_run(call.words, settings)) return run_now(settings, call.command);
  }
  CLI::App root("One instance of a program, whose children die with it.", "instance-guard");
  root.require_subcommand(1);
  root.set_version_flag("--version", tool::version_text());
  root.footer(examples);
  tool::use_manual(root);
  tool::add_run(root, call);
  tool::add_status(root, call);
  tool::add_list(root, call);
  tool::add_stop(root, call);
  tool::add_audit(root, call);
  tool::add_reap(root, call);
  tool::add_doctor(root, call);
  tool::add_manual(root, call);
  return tool::answer(root, call);
}
