#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <instance_guard/version.hpp>
#include <iostream>
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

/// One line, whatever CLI11 says in several. Help is for wrong arguments.
int complain(const CLI::App& root, std::string what, bool helps) {
  for (char& c : what)
    if (c == '\n') c = ' ';
  what = shown(what);
  const std::string at = where(root);
  std::fprintf(stderr, "%s: %s%s\n", at.c_str(), what.c_str(), helps ? (" (see " + at + " --help)").c_str() : "");
  return exit_fault;
}

/// What CLI11 says, in words that say which argument is meant.
std::string fault_of(const CLI::App& root, const CLI::ParseError& error) {
  // It misses what is required before it looks at what is left over.
  const std::vector<std::string> extra = root.remaining(true);
  const bool required = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  if (required && !extra.empty()) {
    const std::string& first = extra.front();
    return "'" + first + "' is no " + (first.starts_with('-') ? "option" : "subcommand");
  }
  const std::string text = error.what();
  const std::string option = text.substr(0, text.find(':'));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr && option.size() < text.size())
    return option + (text.find("At Most") != std::string::npos ? ": given more than once" : ": a value is missing");
  return text;
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
  const auto told = [](int code) {
    std::cout.flush();
    if (code == 0 && std::cout.good()) return 0;
    std::fputs("instance-guard: stdout can't be written\n", stderr);
    return static_cast<int>(exit_fault);
  };
  try {
    // CLI11 takes them from the back.
    root.parse(std::vector<std::string>(call.words.rbegin(), call.words.rend()));
    return call.exit_code;
  } catch (const CLI::CallForHelp& help) {
    return told(root.exit(help));
  } catch (const CLI::Success& success) {
    return told(root.exit(success));
  } catch (const CLI::ParseError& error) {
    const bool bare = !call.has_command && !call.words.empty() && call.words.front() == "run";
    return complain(root, bare ? "the command stands behind --: run [OPTION]... -- COMMAND" : fault_of(root, error),
                    true);
  } catch (const std::exception& error) {
    return complain(root, error.what(), false);
  }
}

}  // namespace tool
