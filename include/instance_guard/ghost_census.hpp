// layer 4: which processes of this host should not be running, each with its proof.
//
//   process_table before = process_table::read();
//   sleep(2);                                        // a zombie is one that is still there
//   process_table now = process_table::read(census_read_options());
//   for (const ghost& each : take_census(now, &before).ghosts)
//     puts((each.headline + ": " + each.why + "\n  " + each.remedy).c_str());
//
// Reads only: nothing is signalled, written, executed or waited for. When in doubt, a process is
// no ghost. What a census says is true of the moment of its table: whoever ends a ghost does it by
// identity (process_handle), after a census of its own.
//
// Thread-safe. Not for signal handlers. The rules are in docs/census.md.
#pragma once

#include <system_error>
#include <vector>

#include "detail/census_take.hpp"
#include "detail/without_throwing.hpp"
#include "error.hpp"
#include "ghost_census_types.hpp"

namespace instance_guard {

/// What to read a table with that is meant for take_census(): then most processes are looked at once.
/// Of any other table the census reads the details itself.
inline read_options census_read_options(const census_options& options = {}) {
  return detail::census_details(options.all_users);
}

/// Finds the ghosts of a table. `earlier`: a table read some seconds before; without it no zombie
/// is confirmed. Reads more of single processes (/proc), of the files that they run, and of the
/// lock directories.
///
/// `ec`: invalid_argument for a pattern that is no regular expression; not_enough_memory;
/// too_many_files_open. What can't be read otherwise is no error but a blind spot.
inline census take_census(const process_table& now, const process_table* earlier, const census_options& options,
                          std::error_code& ec) noexcept {
  ec.clear();
  census result;
  detail::without_throwing(ec, [&] { result = detail::take(now, earlier, options, ec); });
  if (ec) return {};
  return result;
}
inline census take_census(const process_table& now, const process_table* earlier, std::error_code& ec) noexcept {
  return take_census(now, earlier, census_options(), ec);
}
inline census take_census(const process_table& now, std::error_code& ec) noexcept {
  return take_census(now, nullptr, census_options(), ec);
}

/// Who manages each process of a table, in its order. Those of other users, of which only names
/// can be read, may have nobody. `ec`: not_enough_memory, too_many_files_open.
inline std::vector<process_manager> managers_of(const process_table& table, const census_options& options,
                                                std::error_code& ec) noexcept {
  ec.clear();
  std::vector<process_manager> result;
  detail::without_throwing(ec, [&] {
    detail::census_view view = detail::make_census_view(table, options);
    const std::vector<lock_status> locks = detail::census_locks(options, ec);
    if (ec) return;
    detail::resolve_all(view, locks);
    for (const detail::census_process& each : view.all) result.push_back(each.manager());
    ec = view.fault;
  });
  if (ec) result.clear();
  return result;
}
inline std::vector<process_manager> managers_of(const process_table& table, std::error_code& ec) noexcept {
  return managers_of(table, census_options(), ec);
}

/// Who manages one process of a table. It looks at all of them: for many use managers_of().
/// A process that is not in the table has nobody. `ec`: not_enough_memory, too_many_files_open.
inline process_manager managed_by(const process_table& table, const process_info& process,
                                  std::error_code& ec) noexcept {
  census_options options;
  options.all_users = true;
  std::vector<process_manager> all = managers_of(table, options, ec);
  for (std::size_t i = 0; i < all.size(); ++i)
    if (table[i].id == process.id) return std::move(all[i]);
  return {};
}

#if INSTANCE_GUARD_EXCEPTIONS
inline census take_census(const process_table& now, const process_table* earlier = nullptr,
                          const census_options& options = {}) {
  std::error_code ec;
  census result = take_census(now, earlier, options, ec);
  if (ec) throw std::system_error(ec, "taking the census");
  return result;
}
inline std::vector<process_manager> managers_of(const process_table& table, const census_options& options = {}) {
  std::error_code ec;
  std::vector<process_manager> result = managers_of(table, options, ec);
  if (ec) throw std::system_error(ec, "who manages the processes");
  return result;
}
inline process_manager managed_by(const process_table& table, const process_info& process) {
  std::error_code ec;
  process_manager result = managed_by(table, process, ec);
  if (ec) throw std::system_error(ec, "who manages process " + std::to_string(process.id.pid));
  return result;
}
#endif

}  // namespace instance_guard
