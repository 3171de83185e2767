#include "audit_report.hpp"

#include <algorithm>

namespace tool {

using namespace instance_guard;

std::size_t audit_report::ghosts_of(ghost_kind kind) const {
  std::size_t count = 0;
  for (const ghost& each : census.ghosts)
    if (each.kind == kind)
      count += static_cast<std::size_t>(std::count_if(each.processes.begin(), each.processes.end(),
                                                      [](const census_entry& one) { return !one.keep; }));
  return count;
}

std::size_t audit_report::ghosts() const {
  std::size_t count = 0;
  for (const ghost_kind kind : {ghost_kind::zombie, ghost_kind::orphan, ghost_kind::duplicate, ghost_kind::stale})
    count += ghosts_of(kind);
  return count;
}

std::size_t audit_report::findings_of(severity level) const {
  std::size_t count = 0;
  for (const ghost& each : census.ghosts) count += each.level == level ? 1U : 0U;
  for (const note& each : census.notes) count += each.level == level ? 1U : 0U;
  return count;
}

int exit_code_of(const census& census) {
  switch (census.worst()) {
    case severity::critical: return 2;
    case severity::warning: return 1;
    case severity::note: break;
  }
  return census.complete ? 0 : 3;
}

}  // namespace tool
