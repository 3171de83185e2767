#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <instance_guard/version.hpp>
#include <string>
#include <vector>

#include "exit_codes.hpp"
#include "text.hpp"

namespace tool {
namespace {

/// "instance-guard run" for whatever follows the name of the subcommand.
std::string where(const CLI::App& root) {
  std::string text = "instance-guard";
  for (const CLI::App* each : root.get_subcommands()) text += " " + each->get_name();
  return text;
}

/// One line, whatever CLI11 says in several.
int complain(const CLI::App& root, std::string what) {
  for (char& c : what)
    if (c == '\n') c = ' ';
  what = shown(what);
  const std::string at = where(root);
  std::fprintf(stderr, "%s: %s (see %s --help)\n", at.c_str(), what.c_str(), at.c_str());
  return exit_fault;
}

}  // namespace

std::string version_text() {
  return "instance-guard " + std::to_string(INSTANCE_GUARD_VERSION_MAJOR) + "." +
         std::to_string(INSTANCE_GUARD_VERSION_MINOR) + "." + std::to_string(INSTANCE_GUARD_VERSION_PATCH);
}

void split(int count, char** arguments, invocation& call) {
  for (int i = 1; i < count; ++i) {
    const std::string each = arguments[i];
    if (call.has_command) call.command.push_back(each);
    else if (each == "--") call.has_command = true;
    else call.words.push_back(each);
  }
}

int answer(CLI::App& root, invocation& call) {
  try {
    // CLI11 takes them from the back.
    root.parse(std::vector<std::string>(call.words.rbegin(), call.words.rend()));
    return call.exit_code;
  } catch (const CLI::CallForHelp& help) {
    return root.exit(help) == 0 ? 0 : exit_fault;
  } catch (const CLI::Success& success) {
    return root.exit(success) == 0 ? 0 : exit_fault;
  } catch (const CLI::ParseError& error) {
    const bool bare = !call.has_command && !call.words.empty() && call.words.front() == "run";
    return complain(root, bare ? "the command stands behind --: run [OPTION]... -- COMMAND" : error.what());
  } catch (const std::exception& error) {
    return complain(root, error.what());
  }
}

}  // namespace tool
