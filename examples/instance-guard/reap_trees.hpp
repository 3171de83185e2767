// Ending processes that were found by identity, with all their descendants, and nobody else.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <instance_guard/ghost_census.hpp>
#include <instance_guard/process_table.hpp>

namespace tool {

/// One that is to be ended.
struct doomed_process {
  instance_guard::process_identity who = {};
  std::string command = {};  ///< harmless
  std::string why = {};      ///< harmless
  std::string kept = {};     ///< why it is not ended after all; empty: it is
  bool signalled = false;
};

/// Why this one of a ghost is not to be ended; empty: it can be.
std::string why_not_ended(const instance_guard::ghost& found, const instance_guard::census_entry& entry);

/// Adds the descendants that live in `table` of all that are not kept. Never the caller, those
/// above it, process 1, another user's, a service, or what carries INSTANCE_GUARD_KEEP=1: these are
/// added as kept, and what is below them is left alone.
void add_descendants(std::vector<doomed_process>& all, const instance_guard::process_table& table);

/// SIGTERM and SIGCONT, the grace, SIGKILL, until none is left, also of those that appear
/// meanwhile. Returns those that still live, 10 s after the grace at the latest.
std::vector<doomed_process> end_trees(std::vector<doomed_process>& all, std::chrono::milliseconds grace);

}  // namespace tool
