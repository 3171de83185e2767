// layer 2: what a process_table reads of one process beyond its row.
//
// All of it goes through one descriptor of the process's directory, which belongs to that process
// for good: once it has ended each read fails, also when its pid is another's by now.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../file_descriptor.hpp"
#include "../platform/platform_census.hpp"
#include "../process_table_types.hpp"
#include "container_id.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

/// How long a pass may wait, all in all, for processes that can't be read just now.
struct table_patience {
  int milliseconds = 50;

  /// Waits a moment. False: no more.
  bool wait() noexcept {
    if (milliseconds <= 0) return false;
    --milliseconds;
    platform::sys::sleep_for(1'000'000);
    return true;
  }
};

inline std::error_code details_fault(long negated_errno) noexcept {
  if (negated_errno >= 0) return {};
  const int number = static_cast<int>(-negated_errno);
  // What has been denied to us is told in one way.
  if (number == EPERM || number == EACCES) return std::make_error_code(std::errc::permission_denied);
  return {number == ENOENT ? ESRCH : number, std::system_category()};
}

/// True if the call itself failed, not just this part of this process.
inline bool is_fault_of_call(long negated_errno) noexcept {
  return negated_errno == -EMFILE || negated_errno == -ENFILE || negated_errno == -ENOMEM;
}

/// Appends a file, at most `limit` bytes of it; `one_read`: less than was asked for is its end. 1:
/// there was more; 0; or a negated errno.
inline int append_view_file(const platform::process_view& view, const char* leaf, std::size_t limit, std::string& out,
                            bool one_read = false) {
  const int opened = platform::open_view_file(view, leaf);
  if (opened < 0) return opened;
  const file_descriptor file(opened);
  char block[4096];
  for (;;) {
    const long got = platform::sys::read(file.get(), block, sizeof block);
    if (got == -EINTR) continue;
    if (got <= 0) return static_cast<int>(got);
    const std::size_t room = limit - out.size();
    const auto size = static_cast<std::size_t>(got);
    out.append(block, size < room ? size : room);
    if (size > room) return 1;
    if (one_read && size < sizeof block) return 0;
  }
}

/// The parts of a command line: each ends with NUL, the last one may lack it.
inline std::vector<std::string> split_arguments(std::string_view text) {
  // A program that writes a title over its arguments fills up with NUL: that is no argument.
  const std::size_t first_end = text.find('\0');
  if (first_end != std::string_view::npos && first_end + 2 < text.size() &&
      text.find_first_not_of('\0', first_end) == std::string_view::npos)
    text = text.substr(0, first_end + 1);
  std::vector<std::string> result;
  result.reserve(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\0')) + 1);
  while (!text.empty()) {
    const std::size_t end = text.find('\0');
    result.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return result;
}

/// A process as it was found when its details were asked for.
struct found_process {
  platform::process_view view = {};
  platform::process_stat facts = {};
  bool in_transition = false;  ///< it executes another program and has no memory just now
  uid_t user = 0;

  bool ended() const noexcept { return facts.state == 'X' || (facts.state == 'Z' && facts.threads <= 1); }
};

/// 0, or a negated errno; `view` is open.
inline int look_at_process(found_process& out) noexcept {
  const int result = platform::view_user(out.view, out.user);
  return result != 0 ? result : platform::view_stat(out.view, out.facts);
}

/// Whether reading its memory (arguments, environment) could hang: that takes a lock of it, which
/// one of its threads may hold while it waits for a dead file system, say. Such a process is in
/// state D; what is so for a moment only is waited for.
inline std::error_code memory_may_hang(found_process& process, table_patience& patience) noexcept {
  while (process.facts.state == 'D') {
    if (!patience.wait()) return std::make_error_code(std::errc::resource_unavailable_try_again);
    const int result = look_at_process(process);
    if (result != 0) return details_fault(result);
  }
  return {};
}

/// Nothing was there to be read: because it has ended meanwhile, or executes another program? None:
/// it has nothing.
inline std::error_code why_without_memory(found_process& process) noexcept {
  process.view.thread = 0;
  if (platform::view_stat(process.view, process.facts, &process.in_transition) != 0 || process.ended())
    return std::make_error_code(std::errc::no_such_process);
  if (process.in_transition) return std::make_error_code(std::errc::resource_unavailable_try_again);
  return {};
}

inline int read_file_link(const platform::process_view& view, const char* leaf, bool with_id, process_file& out) {
  char path[4096];
  const long size = platform::read_view_link(view, leaf, path, sizeof path);
  if (size < 0) return static_cast<int>(size);
  std::string_view text(path, static_cast<std::size_t>(size));
  constexpr std::string_view suffix = " (deleted)";
  const bool may_be_deleted = text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
  struct stat facts = {};
  const int result = with_id || may_be_deleted ? platform::stat_view_link(view, leaf, facts) : -ENOENT;
  if (with_id && result == 0) {
    out.device = static_cast<std::uint64_t>(facts.st_dev);
    out.inode = static_cast<std::uint64_t>(facts.st_ino);
  }
  if (may_be_deleted) {
    // Or it is called so.
    struct stat there = {};
    const std::string whole(text);
    const bool is_its_name = result == 0 && platform::sys::fstatat(AT_FDCWD, whole.c_str(), &there, 0) == 0 &&
                             there.st_dev == facts.st_dev && there.st_ino == facts.st_ino;
    if (!is_its_name) {
      out.deleted = true;
      text.remove_suffix(suffix.size());
    }
  }
  out.path = text;
  return 0;
}

inline bool is_wanted_variable(std::string_view name, const read_options& what) noexcept {
  for (const std::string_view each : session_markers)
    if (name.substr(0, each.size()) == each && (name.size() == each.size() || each.back() == '_')) return true;
  for (const std::string& each : what.variables)
    if (name == each) return true;
  return false;
}

/// What is kept of an environment.
struct found_variables {
  const read_options& what;
  std::vector<process_variable>& out;
  bool empty = true;
  std::error_code fault = {};

  bool add(std::string_view entry) noexcept {
    empty = false;
    // The names that are looked for begin with one of these: most others are not even split.
    constexpr std::string_view begins = "BCGIJRST";
    const std::size_t sign = entry.find('=');
    if (sign == std::string_view::npos || sign == 0) return true;
    if (begins.find(entry.front()) == std::string_view::npos && !begins_as_wanted(entry.front())) return true;
    if (!is_wanted_variable(entry.substr(0, sign), what)) return true;
    without_throwing(fault, [&] {
      constexpr std::size_t most = 300;
      out.push_back({std::string(entry.substr(0, sign)), std::string(entry.substr(sign + 1, most))});
    });
    return !fault;
  }
  bool begins_as_wanted(char first) const noexcept {
    for (const std::string& each : what.variables)
      if (!each.empty() && each.front() == first) return true;
    return false;
  }
  static bool visit(const char* text, std::size_t size, void* self) noexcept {
    return static_cast<found_variables*>(self)->add({text, size});
  }
};

/// 1: the environment is empty, or gone; 0; or a negated errno.
inline int read_markers(const platform::process_view& view, const read_options& what,
                        std::vector<process_variable>& out) {
  found_variables found{what, out};
  char buffer[16'384];
  const int opened = platform::open_view_file(view, "environ");
  if (opened < 0) return opened;
  const file_descriptor file(opened);
  const long got = platform::sys::read(file.get(), buffer, sizeof buffer);
  if (got < 0 && got != -EINTR) return static_cast<int>(got);
  if (got >= 0 && got < static_cast<long>(sizeof buffer)) {
    std::string_view rest(buffer, static_cast<std::size_t>(got));
    while (!rest.empty()) {
      const std::size_t end = rest.find('\0');
      if (!found.add(rest.substr(0, end))) return -ENOMEM;
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    }
    return found.empty ? 1 : 0;
  }
  // A large one, from its beginning, in pieces.
  const int result = platform::view_environment(view, buffer, sizeof buffer, &found_variables::visit, &found);
  return found.fault ? -ENOMEM : result < 0 ? result : found.empty ? 1 : 0;
}

/// The parts that are in its memory. A negated errno if the call failed.
inline int fill_from_memory(found_process& process, const read_options& what, table_patience& patience,
                            process_details& out) {
  constexpr int most_tries = 5;
  for (int tries = 1;; ++tries) {
    std::error_code fault = memory_may_hang(process, patience);
    std::string text;
    int arguments = 0;
    int markers = 0;
    out.markers.clear();
    if (!fault && what.arguments) arguments = append_view_file(process.view, "cmdline", what.max_arguments, text, true);
    if (!fault && what.markers) markers = read_markers(process.view, what, out.markers);
    if (is_fault_of_call(arguments)) return arguments;
    if (is_fault_of_call(markers)) return markers;
    const bool nothing = (what.arguments && arguments == 0 && text.empty()) || markers == 1;
    if (!fault && nothing) fault = why_without_memory(process);
    if (nothing && process.in_transition && tries < most_tries && patience.wait()) continue;
    out.arguments = split_arguments(text);
    out.arguments_cut = arguments == 1;
    if (what.arguments) out.arguments_fault = arguments < 0 ? details_fault(arguments) : fault;
    if (what.markers) out.markers_fault = markers < 0 ? details_fault(markers) : fault;
    return 0;
  }
}

/// All that `what` asks for; `process` is looked at again on the way. A negated errno if the call
/// failed.
inline int fill_details(found_process process, const read_options& what, table_patience& patience,
                        process_details& out) {
  int call = 0;
  const auto fault_of = [&](int result) {
    if (is_fault_of_call(result)) call = result;
    return details_fault(result);
  };
  // A leader that has ended shows nothing of its own while its other threads live.
  char buffer[1024];
  std::uint64_t met = 0;
  const bool led_by_another = process.facts.state == 'Z' && process.facts.threads > 1 &&
                              platform::view_living_thread(process.view, buffer, sizeof buffer, met) == 0;
  // A thread of the kernel, and what has ended, execute nothing and carry nothing.
  const bool runs_a_program =
      !process.facts.kernel_thread && (led_by_another || process.facts.state != 'Z') && !process.ended();
  if (runs_a_program) {
    if (what.executable)
      out.executable_fault = fault_of(read_file_link(process.view, "exe", what.file_ids, out.executable));
    if (what.working_directory)
      out.working_directory_fault = fault_of(read_file_link(process.view, "cwd", what.file_ids, out.working_directory));
    if (what.arguments || what.markers)
      if (const int result = fill_from_memory(process, what, patience, out); result < 0) return result;
  }
  if (what.cgroup) {
    out.cgroup_fault = fault_of(append_view_file(process.view, "cgroup", 16'384, out.cgroup, true));
    out.container = container_of_cgroups(out.cgroup);
    platform::view_pid_namespace(process.view, out.pid_namespace);
  }
  return call;
}

}  // namespace instance_guard::detail
