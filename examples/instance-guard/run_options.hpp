// What `instance-guard run` is asked for.
#pragma once

#include <CLI/App.hpp>
#include <chrono>
#include <csignal>
#include <instance_guard/error.hpp>
#include <instance_guard/pid_lockfile_types.hpp>
#include <string>
#include <vector>

#include "exit_codes.hpp"

namespace tool {

struct run_settings {
  std::vector<std::string> names = {};  ///< none: containment alone
  instance_guard::lock_scope scope = instance_guard::lock_scope::user;
  std::chrono::milliseconds wait{0};
  bool replace = false;
  std::chrono::milliseconds grace{5'000};
  int stop_signal = SIGTERM;
  std::chrono::milliseconds timeout = instance_guard::no_limit;
  std::string session = {};
  std::string tag = {};
  int conflict_exit_code = exit_refused;
  bool quiet = false;
};

/// Adds the options of `run` to its subcommand. Bad values are CLI::ValidationErrors.
void add_run_options(CLI::App& app, run_settings& settings);

/// An option that was given and means something only with a name, of which there is none; else empty.
std::string lacks_name(const CLI::App& app, const run_settings& settings);

/// Reads "run --name shiva --grace 5s" without CLI11, which takes as long as starting a program.
/// False: there is something that it has to look at, be it a mistake or a question.
bool read_plain_run(const std::vector<std::string>& own, run_settings& settings);

/// Runs the command and everything around it. What to exit with.
int run(const run_settings& settings, const std::vector<std::string>& command);

}  // namespace tool
