// layer 2: the rows and details of a process_table, read through the platform layer.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../file_descriptor.hpp"
#include "../platform/platform_census.hpp"
#include "../process_table_types.hpp"
#include "table_details.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

struct table_content {
  std::vector<process_info> rows = {};
  std::vector<process_details> details = {};  ///< one of each row, or none
  std::chrono::system_clock::time_point taken_at = {};
  std::size_t unreadable = 0;
  bool hides_others = false;
};

/// An open /proc that numbers processes as the caller does.
struct open_table {
  file_descriptor list = {};
  process_identity here = {};  ///< boot and pid namespace; its pid says nothing
};

inline open_table open_process_table(const std::string& proc, std::error_code& ec) {
  open_table result;
  const int list = platform::open_process_list(proc.empty() ? "/proc" : proc.c_str());
  if (list < 0) {
    ec = std::error_code(-list, std::system_category());
    return result;
  }
  result.list = file_descriptor(list);
  // Another /proc may number the processes of another namespace: nobody is to be signalled by it.
  if (!proc.empty()) return result;
  if (platform::process_list_is_ours() != 0) {
    ec = std::make_error_code(std::errc::no_such_process);
    return result;
  }
  result.here = process_identity::self();
  return result;
}

inline process_info row_of(const platform::process_stat& facts, uid_t user, const process_identity& here,
                           std::int64_t clock_zero, std::uint64_t page) noexcept {
  using namespace std::chrono;
  process_info row;
  row.id = here;
  row.id.pid = facts.pid;
  row.id.start_time = facts.start_time;
  row.parent = facts.parent;
  row.session = facts.session;
  row.group = facts.group;
  row.state = static_cast<process_state>(facts.state);
  row.kernel_thread = facts.kernel_thread;
  row.threads = static_cast<std::uint32_t>(facts.threads > 0 ? facts.threads : 0);
  row.user = user;
  row.terminal = static_cast<std::uint32_t>(facts.terminal);
  row.resident_bytes = facts.resident_pages * page;
  row.cpu_time = duration_cast<milliseconds>(
      nanoseconds(static_cast<std::int64_t>(facts.cpu_time) * platform::process_clock_tick));
  row.started_at = system_clock::time_point(duration_cast<system_clock::duration>(
      nanoseconds(clock_zero + static_cast<std::int64_t>(facts.start_time) * platform::process_clock_tick)));
  for (std::size_t i = 0; i + 1 < sizeof row.name_bytes && facts.name[i] != '\0'; ++i)
    row.name_bytes[i] = facts.name[i];
  return row;
}

inline std::vector<pid_t> listed_processes(int list, std::error_code& ec) {
  struct context {
    std::vector<pid_t> pids = {};
    std::error_code fault = {};
    static bool add(pid_t pid, void* self) noexcept {
      auto* here = static_cast<context*>(self);
      without_throwing(here->fault, [&] { here->pids.push_back(pid); });
      return !here->fault;
    }
  } here;
  char buffer[32'768];
  const int result = platform::for_each_process_in(list, buffer, sizeof buffer, &context::add, &here);
  if (here.fault) ec = here.fault;
  else if (result < 0) ec = std::error_code(-result, std::system_category());
  return std::move(here.pids);
}

inline bool asks_for_details(const read_options& what) noexcept {
  return what.arguments || what.executable || what.working_directory || what.cgroup || what.markers;
}

/// One process with its details, all through one descriptor. 0, or a negated errno.
inline int read_with_details(int list, pid_t pid, const read_options& what, table_patience& patience,
                             found_process& found, process_details& out) {
  const int opened = platform::open_listed_process(list, pid, found.view);
  if (opened < 0) return opened;
  const file_descriptor held(found.view.directory);
  const int result = look_at_process(found);
  if (result != 0) return result;
  if (found.facts.pid != pid) return -ESRCH;
  if (what.details_of && *what.details_of != found.user) return 0;
  return fill_details(found, what, patience, out);
}

inline table_content read_table(const read_options& what, std::error_code& ec) {
  table_content content;
  const open_table table = open_process_table(what.proc, ec);
  if (ec) return content;
  const int list = table.list.get();
  content.taken_at = std::chrono::system_clock::now();
  const std::int64_t clock_zero = platform::process_clock_zero();
  const std::uint64_t page = platform::page_bytes();
  const std::vector<pid_t> pids = listed_processes(list, ec);
  if (ec) return content;
  content.hides_others = what.proc.empty() && platform::list_hides_processes(list);
  const bool with_details = asks_for_details(what);
  content.rows.reserve(pids.size());
  if (with_details) content.details.reserve(pids.size());
  table_patience patience;
  for (const pid_t pid : pids) {
    found_process found;
    process_details details;
    const int result = with_details ? read_with_details(list, pid, what, patience, found, details)
                                    : platform::read_listed_process(list, pid, found.facts, found.user);
    if (is_fault_of_call(result)) {
      ec = std::error_code(-result, std::system_category());
      return content;
    }
    if (result == -EPERM || result == -EACCES) ++content.unreadable;
    if (result < 0) continue;
    content.rows.push_back(row_of(found.facts, found.user, table.here, clock_zero, page));
    if (with_details) content.details.push_back(std::move(details));
  }
  return content;
}

/// `who` is of a table that was read from the same /proc: there its start time tells it apart.
inline process_details read_details(const process_identity& who, const read_options& what, const std::string& proc,
                                    std::error_code& ec) {
  process_details result;
  const int opened = platform::open_process_list(proc.empty() ? "/proc" : proc.c_str());
  if (opened < 0) {
    ec = std::error_code(-opened, std::system_category());
    return result;
  }
  const file_descriptor list(opened);
  found_process found;
  table_patience patience;
  int outcome = platform::open_listed_process(list.get(), who.pid, found.view);
  if (outcome == 0) {
    const file_descriptor held(found.view.directory);
    outcome = look_at_process(found);
    if (outcome == 0 && found.facts.start_time != who.start_time) outcome = -ESRCH;
    if (outcome == 0) outcome = fill_details(found, what, patience, result);
  }
  ec = details_fault(outcome);
  return result;
}

}  // namespace instance_guard::detail
