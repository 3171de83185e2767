// What audit has found, and the ways to say it.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <instance_guard/ghost_census.hpp>

#include "lock_view.hpp"

namespace tool {

struct audit_report {
  instance_guard::census census = {};
  std::vector<lock_view> locks = {};
  std::optional<std::chrono::system_clock::time_point> last_ghost = {};  ///< of an earlier audit
  std::string host = {};
  std::string user = {};
  std::string again = "instance-guard audit";  ///< what finds the same
  bool all_users = false;
  bool verbose = false;
  int exit_code = 0;

  std::size_t ghosts_of(instance_guard::ghost_kind kind) const;  ///< processes, those to keep left out
  std::size_t ghosts() const;
  std::size_t findings_of(instance_guard::severity level) const;
};

/// 2 critical, else 1 warning, else 3 not all that was asked for could be seen, else 0.
int exit_code_of(const instance_guard::census& census);

/// For people, in 80 columns or in 120.
std::string audit_text(const audit_report& report, std::size_t columns);

/// One JSON document.
std::string audit_json(const audit_report& report);

/// The text format of Prometheus' exporters, for a file that node_exporter reads.
std::string audit_prometheus(const audit_report& report);
/// Writes it beside `path`, then renames. Throws std::system_error.
void write_prometheus(const std::string& path, const std::string& text);

/// Payloads for a Discord webhook, each one line of JSON with at most 2,000 characters of content.
std::vector<std::string> audit_discord(const audit_report& report);

/// One line for Nagios, with performance data.
std::string audit_nagios(const audit_report& report);

}  // namespace tool
