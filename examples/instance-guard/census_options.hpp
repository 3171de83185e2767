// What audit and reap ask a census for, from the command line.
#pragma once

#include <CLI/App.hpp>

#include <string>
#include <vector>

#include <instance_guard/ghost_census.hpp>

namespace tool {

struct census_arguments {
  std::vector<std::string> kinds = {};
  std::vector<std::string> services = {};
  std::vector<std::string> ignore = {};
  std::string older_than = "24h";
  std::string min_age = "10m";
  std::string zombie_wait = "2s";
  bool all_users = false;
};

/// Those that say who is a ghost: for audit and reap.
void add_census_options(CLI::App& sub, census_arguments& to);

/// Those that say what is looked at: for audit.
void add_audit_options(CLI::App& sub, census_arguments& to);

/// "NAME=PATTERN[=COUNT]"; throws CLI::ValidationError.
instance_guard::service_rule parse_service(const std::string& text);

/// A census of now: two tables, some time apart if there are zombies. Meanwhile, if stderr is a
/// terminal, it says so. Throws std::system_error.
instance_guard::census take_census_now(const census_arguments& arguments);

}  // namespace tool
