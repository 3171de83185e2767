// layer 4: the processes of a table as the rules of a census see them.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../ghost_census_types.hpp"
#include "../platform/platform_census.hpp"
#include "../process_table.hpp"
#include "census_path.hpp"
#include "census_words.hpp"

namespace instance_guard::detail {

/// What a process is to a census.
enum class process_role {
  unknown,  ///< can't be told what it runs
  program,
  wrapper,  ///< waits for the program that it has started; a shell that runs a command line is one
  shell,    ///< one that somebody types into
  tool,     ///< greps, edits, shows ...
  session,  ///< tmux, sshd, login, cron: people and timers come in through it
  agent,
  supervisor
};

/// The program that a process runs; see census_command.hpp.
struct census_program {
  language interpreter = language::none;
  std::string given = {};               ///< the script, module or executable as its arguments have it
  std::string path = {};                ///< of the file, without links; empty: not found
  std::string key = {};                 ///< equal: the same program; empty: none
  std::string shown = {};               ///< "shiva/main.py"
  std::vector<std::string> rest = {};   ///< the arguments behind it
  std::vector<passed_link> links = {};  ///< on the way to it
  bool generic = false;                 ///< installed for everybody: what it does is in its arguments
  bool module = false;                  ///< python -m
};

struct census_process {
  const process_info* info = nullptr;
  process_details details = {};
  bool ended = false;                       ///< all of it: also its threads
  bool visible = false;                     ///< details were read, and it is one of those that were asked for
  bool ancestor = false;                    ///< the caller, or above it
  bool same_root = false;                   ///< absolute paths mean the same to it as to the caller
  bool ignored = false;                     ///< by a pattern of the caller's
  std::optional<bool> ignores_hangup = {};  ///< empty: can't be told
  process_role role = process_role::unknown;
  census_program program = {};
  process_manager manager = {};
  bool adopted = false;   ///< its parent reaps what others leave, and did not start it
  bool reported = false;  ///< as an orphan, or in a duplicate
  bool extra = false;     ///< of a duplicate, to be ended

  pid_t pid() const noexcept { return info->id.pid; }
  bool alive() const noexcept { return !ended && !info->kernel_thread; }
};

/// A living agent, or a session that lives: a process, by its name or by the mark that it has given
/// to others.
struct living_agent {
  std::size_t index = 0;     ///< into census_view::all
  std::string agent = {};    ///< "claude"
  std::string id = {};       ///< of its session; empty: can't be told
  bool by_id_alone = false;  ///< a shell or the like: only what has this very id is its own
};

/// All of them, ascending by pid.
struct census_view {
  const process_table* table = nullptr;
  std::vector<census_process> all = {};
  std::vector<living_agent> agents = {};
  slow_places slow = {};
  std::string own_container = {};
  std::uint64_t own_pid_namespace = 0;

  census_process* find(pid_t pid) noexcept {
    const auto at = std::lower_bound(all.begin(), all.end(), pid,
                                     [](const census_process& each, pid_t value) { return each.pid() < value; });
    return at != all.end() && at->pid() == pid ? &*at : nullptr;
  }
  const census_process* find(pid_t pid) const noexcept { return const_cast<census_view*>(this)->find(pid); }
  /// Its living parent, or null. One that started later is a stranger with a reused number.
  const census_process* parent(const census_process& of) const noexcept {
    const census_process* found = find(of.info->parent);
    if (found == nullptr || found->info->id.start_time > of.info->id.start_time) return nullptr;
    return found;
  }
  /// True if a living process has this pid.
  bool lives(pid_t pid) const noexcept {
    const census_process* found = find(pid);
    return found != nullptr && !found->ended;
  }
  std::chrono::seconds age(const census_process& of) const noexcept {
    return std::chrono::duration_cast<std::chrono::seconds>(table->age(*of.info));
  }
};

/// Whether it ignores SIGHUP; empty: can't be told.
inline std::optional<bool> ignores_hangup(const process_identity& who) noexcept {
  const int answer = platform::process_ignores_hangup(who.pid);
  // Asked of the process of the table only if it still has its pid.
  std::error_code ec;
  if (answer < 0 || process_identity::of(who.pid, ec) != who || ec) return {};
  return answer == 1;
}

/// True if a process whose main thread has ended has no other that lives: threads that somebody
/// traced stay as well, until they are asked for (ps shows "Zl" for both).
inline bool has_ended(const process_info& info) noexcept {
  if (info.state != process_state::zombie || info.threads <= 1) return info.ended();
  platform::process_view process;
  if (platform::open_process(info.id.pid, process) != 0) return false;
  char buffer[4096];
  std::uint64_t met = 0, met_again = 0;
  const bool none = platform::view_living_thread(process, buffer, sizeof buffer, met) == -ESRCH &&
                    platform::view_living_thread(process, buffer, sizeof buffer, met_again) == -ESRCH;
  platform::close_process(process);
  return none && met == met_again;
}

/// What the rules need of each process that is looked at.
inline read_options census_details(bool all_users) {
  read_options what = read_options::everything();
  what.file_ids = false;  // of the executable alone, where the file at its path is another one
  what.variables = {"PWD"};
  what.max_arguments = 64 * 1024;
  if (!all_users) what.details_of = ::geteuid();
  return what;
}

/// Has the details of those that the options ask for: of the table, or read now.
inline census_view make_census_view(const process_table& table, const census_options& options) {
  census_view view;
  view.table = &table;
  view.all.reserve(table.size());
  const read_options what = census_details(options.all_users);
  const bool stored = table.stores(what);
  const uid_t user = ::geteuid();
  for (const process_info& each : table) {
    census_process one;
    one.info = &each;
    one.ended = has_ended(each);
    if (!each.kernel_thread && (options.all_users || each.user == user)) {
      std::error_code ec;
      if (stored) one.details = *table.stored_details(each);
      else one.details = table.details(each, what, ec);
      one.visible = !ec;
    }
    view.all.push_back(std::move(one));
  }
  pid_t at = ::getpid();
  for (int depth = 0; depth < 1024 && at > 0; ++depth) {
    census_process* found = view.find(at);
    if (found == nullptr || found->ancestor) break;
    found->ancestor = true;
    at = found->info->parent;
  }
  std::error_code ec;
  const process_info* self = table.find(::getpid());
  if (self != nullptr) {
    const process_details own = table.details(*self, what, ec);
    view.own_container = own.container;
    view.own_pid_namespace = own.pid_namespace;
  }
  return view;
}

/// The arguments joined by blanks, at most `limit` bytes.
inline std::string joined(const std::vector<std::string>& arguments, std::size_t limit = 32'768) {
  std::string text;
  for (const std::string& each : arguments) {
    if (!text.empty()) text += ' ';
    if (text.size() + each.size() > limit) {
      text.append(each, 0, limit - std::min(limit, text.size()));
      break;
    }
    text += each;
  }
  return text;
}

/// What names a process among its like: the name of the file it executes, else its first argument.
inline std::string executable_name(const census_process& of) {
  const std::string& path = of.details.executable.path;
  if (!path.empty()) return std::string(base_name(path));
  if (!of.details.arguments.empty()) return std::string(base_name(of.details.arguments.front()));
  return std::string(of.info->name());
}

}  // namespace instance_guard::detail
