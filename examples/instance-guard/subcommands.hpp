// The subcommands: each is added to the root command by a function of its own file.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace tool {

/// One call of the tool, between its parts.
struct invocation {
  std::vector<std::string> words;    ///< what stands before "--"
  std::vector<std::string> command;  ///< what stands behind it, untouched
  bool has_command = false;          ///< there was a "--"
  int exit_code = 0;                 ///< what the subcommand's callback leaves here
};

void add_run(CLI::App& root, invocation& call);
void add_status(CLI::App& root, invocation& call);
void add_list(CLI::App& root, invocation& call);
void add_stop(CLI::App& root, invocation& call);
void add_audit(CLI::App& root, invocation& call);
void add_reap(CLI::App& root, invocation& call);
void add_doctor(CLI::App& root, invocation& call);
void add_manual(CLI::App& root, invocation& call);

}  // namespace tool
