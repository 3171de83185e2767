// instance-guard: one instance of a program, whose children die with it; for programs that can't be
// recompiled. See docs/tool.md.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <instance_guard/version.hpp>
#include <string>
#include <unistd.h>
#include <vector>

#include "exit_codes.hpp"
#include "manual.hpp"
#include "run_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace {

constexpr char examples[] =
    "Examples:\n"
    "  instance-guard run --name shiva -- python3 shiva/main.py\n"
    "  instance-guard run --timeout 10m -- pytest -n 8\n"
    "  instance-guard status shiva\n"
    "  instance-guard audit\n"
    "\n"
    "instance-guard run --help says more of one subcommand.";

/// "instance-guard run" for whatever follows the name of the subcommand.
std::string where(const CLI::App& root) {
  std::string text = "instance-guard";
  for (const CLI::App* each : root.get_subcommands()) text += " " + each->get_name();
  return text;
}

std::string version_text() {
  return "instance-guard " + std::to_string(INSTANCE_GUARD_VERSION_MAJOR) + "." +
         std::to_string(INSTANCE_GUARD_VERSION_MINOR) + "." + std::to_string(INSTANCE_GUARD_VERSION_PATCH);
}

/// One line, whatever CLI11 says in several.
int complain(const CLI::App& root, std::string what) {
  for (char& c : what)
    if (c == '\n') c = ' ';
  what = tool::shown(what);
  const std::string at = where(root);
  std::fprintf(stderr, "%s: %s (see %s --help)\n", at.c_str(), what.c_str(), at.c_str());
  return tool::exit_fault;
}

/// The arguments before the first "--"; what stands behind it goes to the command as it is.
std::vector<std::string> split(int count, char** arguments, tool::invocation& call) {
  std::vector<std::string> own;
  for (int i = 1; i < count; ++i) {
    const std::string each = arguments[i];
    if (call.has_command) call.command.push_back(each);
    else if (each == "--") call.has_command = true;
    else own.push_back(each);
  }
  return own;
}

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
  std::vector<std::string> own = split(count, arguments, call);
  if (call.has_command && !call.command.empty() && !call.command.front().empty()) {
    tool::run_settings settings;
    if (tool::read_plain_run(own, settings)) return run_now(settings, call.command);
  }
  CLI::App root("One instance of a program, whose children die with it.", "instance-guard");
  root.require_subcommand(1);
  root.set_version_flag("--version", version_text());
  root.footer(examples);
  try {
    tool::use_manual(root);
    tool::add_run(root, call);
    tool::add_status(root, call);
    tool::add_list(root, call);
    tool::add_stop(root, call);
    tool::add_audit(root, call);
    tool::add_reap(root, call);
    tool::add_doctor(root, call);
    tool::add_manual(root, call);
    // CLI11 takes them from the back.
    root.parse(std::vector<std::string>(own.rbegin(), own.rend()));
    return call.exit_code;
  } catch (const CLI::CallForHelp& help) {
    return root.exit(help) == 0 ? 0 : tool::exit_fault;
  } catch (const CLI::Success& success) {
    return root.exit(success) == 0 ? 0 : tool::exit_fault;
  } catch (const CLI::ParseError& error) {
    const bool bare = root.got_subcommand("run") && !call.has_command;
    return complain(root, bare ? "the command stands behind --: run [OPTION]... -- COMMAND" : error.what());
  } catch (const std::exception& error) {
    return complain(root, error.what());
  }
}
