// The one source of what is said about the tool: its subcommands and options, as CLI11 has them.
// From it come --help, the manual page and the completions of three shells.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace tool {

struct option_doc {
  std::vector<std::string> flags = {};  ///< "-h", "--help"; none: it is positional
  std::string value = {};               ///< "NAME", "user|host"; empty: a flag
  std::string text = {};
  bool many = false;
};

struct command_doc {
  std::string name = {};
  std::string text = {};
  std::string footer = {};
  std::vector<option_doc> options = {};
  std::vector<command_doc> commands = {};
  bool runs_command = false;  ///< takes one behind --
};

/// Hidden ones are left out.
command_doc document(const CLI::App& app);

/// "instance-guard status [OPTION]... NAME..."
std::string synopsis(const command_doc& command, const std::string& parent);

std::string help_text(const command_doc& command, const std::string& parent);
std::string manual_page(const command_doc& root);
std::string completion(const command_doc& root, const std::string& shell);

/// Makes --help of `root`, and of all that is added to it afterwards, come from here.
void use_manual(CLI::App& root);

}  // namespace tool
