// layer 4: which processes of this host should not be running, each with its proof.
//
//   process_table before = process_table::read();
//   sleep(2);                                        // a zombie is one that is still there
//   process_table now = process_table::read();
//   for (const ghost& each : take_census(now, &before).ghosts)
//     puts((each.headline + ": " + each.why + "\n  " + each.remedy).c_str());
//
// Reads only: nothing is signalled, written, executed or waited for. When in doubt, a process is
// no ghost. What a census says is true of the moment of its table: whoever ends a ghost does it by
// identity (process_handle), after a census of its own.
//
// Thread-safe. Not for signal handlers. The rules are in docs/census.md.
#pragma once

#include "ghost_census_types.hpp"

namespace instance_guard {

/// Finds the ghosts of a table. `earlier`: a table read some seconds before; without it no zombie
/// is confirmed. Reads more of single processes (/proc), of the files that they run, and of the
/// lock directories.
///
/// `ec`: invalid_argument for a pattern that is no regular expression; not_enough_memory. What
/// can't be read is no error but a blind spot.
census take_census(const process_table& now, const process_table* earlier,
                   const census_options& options, std::error_code& ec) noexcept;

/// Who manages a process of this table. A process that has ended since is managed by nobody.
/// `ec`: not_enough_memory.
process_manager managed_by(const process_table& table, const process_info& process,
                           std::error_code& ec) noexcept;

#if INSTANCE_GUARD_EXCEPTIONS
census take_census(const process_table& now, const process_table* earlier = nullptr,
                   const census_options& options = {});
process_manager managed_by(const process_table& table, const process_info& process);
#endif

}  // namespace instance_guard
