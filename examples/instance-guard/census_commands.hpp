// The subcommands that need a census. They are a program of their own, instance-guard-census: `run`
// stands before every start of a program, and what it does not need makes it slower. In that
// program these functions do the work; in the tool they execute that program with the words of the
// call.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "census_options.hpp"
#include "subcommands.hpp"

namespace tool {

struct audit_arguments {
  census_arguments census = {};
  bool json = false;
  bool discord = false;
  bool nagios = false;
  bool only_ghosts = false;
  bool verbose = false;
  std::string prometheus = {};
  std::string webhook_file = {};
};

/// Which processes should not be running. What to exit with.
int audit(const audit_arguments& arguments, const invocation& call);

struct reap_arguments {
  std::string session = {};
  std::string grace = "5s";
  bool dry_run = false;
  std::vector<std::string> pids = {};
  bool orphans = false;
  census_arguments census = {};
};

/// Ends ghosts: those with these pids, or all orphans, of a census taken now; with their
/// descendants. What to exit with.
int reap_ghosts(const reap_arguments& arguments, std::chrono::milliseconds grace, const invocation& call);

}  // namespace tool
