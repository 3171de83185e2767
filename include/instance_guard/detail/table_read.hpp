// layer 2: the rows and details of a process_table, read through the platform layer.
#pragma once

#include <algorithm>
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

/// The images of those that were read so far, for read_options::skip_copies.
class known_images {
 public:
  /// `details`: of the rows so far, the last one is of the process that is looked at.
  known_images(const read_options& what, const std::vector<process_details>& details) : rest(what), details_(details) {
    rest.executable = rest.arguments = rest.markers = false;
  }

  read_options rest;  ///< what is read of a copy

  /// True if it is a copy of its parent, and all that they have in common could be read of that.
  bool has_parent_of(const platform::process_stat& facts, uid_t user, std::uint64_t image) const noexcept {
    if (facts.executed || image == 0) return false;
    // /proc lists ascending; a parent with a higher number comes later, and is not found.
    const auto at = std::lower_bound(known_.begin(), known_.end(), facts.parent,
                                     [](const entry& each, pid_t value) { return each.pid < value; });
    if (at == known_.end() || at->pid != facts.parent || at->image != image || at->user != user) return false;
    const process_details& parent = details_[at->row];
    return !parent.executable_fault && !parent.arguments_fault && !parent.markers_fault;
  }

  void add(const platform::process_stat& facts, uid_t user, std::uint64_t image) {
    if (image != 0 && (known_.empty() || known_.back().pid < facts.pid))
      known_.push_back({facts.pid, user, image, details_.size() - 1});
  }

 private:
  struct entry {
    pid_t pid;
    uid_t user;
    std::uint64_t image;
    std::size_t row;
  };
  const std::vector<process_details>& details_;
  std::vector<entry> known_ = {};
};

/// One process with its details, all through one descriptor. 0, or a negated errno.
inline int read_with_details(int list, pid_t pid, const read_options& what, table_patience& patience,
                             known_images* images, found_process& found, process_details& out) {
  const int opened = platform::open_listed_process(list, pid, found.view);
  if (opened < 0) return opened;
  const file_descriptor held(found.view.directory);
  std::uint64_t image = 0;
  int result = platform::view_user(found.view, found.user);
  if (result == 0)
    result = images != nullptr ? platform::view_stat_and_image(found.view, found.facts, image)
                               : platform::view_stat(found.view, found.facts);
  if (result != 0) return result;
  if (found.facts.pid != pid) return -ESRCH;
  if (what.details_of && *what.details_of != found.user) return 0;
  if (images == nullptr) return fill_details(found, what, patience, out);
  out.as_parent = images->has_parent_of(found.facts, found.user, image);
  result = fill_details(found, out.as_parent ? images->rest : what, patience, out);
  if (result == 0) images->add(found.facts, found.user, image);
  return result;
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
  known_images images(what, content.details);
  for (const pid_t pid : pids) {
    found_process found;
    if (with_details) content.details.emplace_back();
    const int result = with_details ? read_with_details(list, pid, what, patience, what.skip_copies ? &images : nullptr,
                                                        found, content.details.back())
                                    : platform::read_listed_process(list, pid, found.facts, found.user);
    if (result < 0 && with_details) content.details.pop_back();
    if (is_fault_of_call(result)) {
      ec = std::error_code(-result, std::system_category());
      return content;
    }
    if (result == -EPERM || result == -EACCES) ++content.unreadable;
    if (result < 0) continue;
    content.rows.push_back(row_of(found.facts, found.user, table.here, clock_zero, page));
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
