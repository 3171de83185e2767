// What `reap` is asked for, and its two ways to find what to end.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "census_options.hpp"

namespace tool {

struct reap_arguments {
  std::string session = {};
  std::string grace = "5s";
  bool dry_run = false;
  std::vector<std::string> pids = {};
  bool orphans = false;
  census_arguments census = {};
};

/// What a session left behind, by its mark.
int reap_session(const reap_arguments& arguments, std::chrono::milliseconds grace);

/// Ghosts: those with these pids, or all orphans, of a census taken now; with their descendants.
int reap_ghosts(const reap_arguments& arguments, std::chrono::milliseconds grace);

}  // namespace tool
