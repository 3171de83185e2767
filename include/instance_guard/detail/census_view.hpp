// layer 4: the processes of a table as the rules of a census see them.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../ghost_census_types.hpp"
#include "../lock_status_types.hpp"
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

/// What a hung-up terminal does to a process.
enum class hangup { unknown, ends_it, is_ignored, is_handled };

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

struct census_view;

/// What is read of a process only when a rule asks for it: hardly any needs all.
struct late_details {
  std::unique_ptr<process_details> origin = {};     ///< cgroup, container, pid namespace
  std::unique_ptr<process_details> arguments = {};  ///< its own, of a copy of its parent
  std::unique_ptr<process_manager> manager = {};
  std::unique_ptr<std::vector<std::string>> settings = {};  ///< see settings_of()
  bool settings_asked = false;
  bool gone = false;  ///< it had ended by then, or could not be looked at again: it is judged no further
};

struct census_process {
  const process_info* info = nullptr;
  const process_details* details = nullptr;  ///< of the table, or of the view; cgroup and the like by origin()
  const process_details* image = nullptr;    ///< the same, or its parent's: executable, arguments, markers
  const census_view* view = nullptr;
  bool knows_origin = false;  ///< it is in the details
  bool ended = false;         ///< all of it: also its threads
  bool visible = false;       ///< details were read, and it is one of those that were asked for
  bool ancestor = false;      ///< the caller, or above it
  bool same_root = false;     ///< absolute paths mean the same to it as to the caller
  bool ignored = false;       ///< by a pattern of the caller's
  bool declared = false;      ///< of a service of which the caller said that several should run
  hangup on_hangup = hangup::unknown;
  process_role role = process_role::unknown;
  census_program program = {};
  bool adopted = false;   ///< its parent reaps what others leave, and did not start it
  bool reported = false;  ///< as an orphan, or in a duplicate
  bool extra = false;     ///< of a duplicate, to be ended
  mutable late_details late = {};

  pid_t pid() const noexcept { return info->id.pid; }
  bool alive() const noexcept { return !ended && !late.gone && !info->kernel_thread; }
  /// With cgroup, container and pid namespace. May find that it is gone.
  const process_details& origin() const;
  /// As it has them itself: a copy of its parent may have made a title of them.
  const std::vector<std::string>& own_arguments() const;
  /// Who manages it. May find that it is gone.
  const process_manager& manager() const;
};

/// A living agent, or a session that lives: a process, by its name or by the mark that it has given
/// to others.
struct living_agent {
  std::size_t index = 0;     ///< into census_view::all
  std::string agent = {};    ///< "claude"
  std::string id = {};       ///< of its session; empty: can't be told
  bool by_id_alone = false;  ///< a shell or the like: only what has this very id is its own
};

/// Bytes of the arguments of one process that are looked at.
inline constexpr std::size_t most_arguments = 64 * 1024;

/// All of them, ascending by pid.
struct census_view {
  const process_table* table = nullptr;
  const std::vector<lock_status>* locks = nullptr;  ///< the guards of this host; set by resolve_all()
  std::vector<census_process> all = {};
  std::deque<process_details> read = {};  ///< where the table has none
  std::vector<living_agent> agents = {};
  slow_places slow = {};
  mutable std::unordered_map<std::string, followed_path> followed = {};  ///< many name the same files
  mutable std::error_code fault = {};  ///< of the system, when a rule asked for more: that is not known then
  platform::directory_id own_root = platform::root_directory();
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
  /// follow_path(), of now or of a moment ago. Valid as long as the view is.
  const followed_path& follow(const std::string& path) const {
    const auto [at, added] = followed.try_emplace(path);
    if (added) at->second = follow_path(path, slow);
    return at->second;
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

/// Asked of the process of the table only if it still has its pid.
inline hangup hangup_of(const process_identity& who) noexcept {
  const int answer = platform::process_hangup(who.pid);
  std::error_code ec;
  if (answer < 0 || process_identity::of(who.pid, ec) != who || ec) return hangup::unknown;
  return answer == 0 ? hangup::ends_it : answer == 1 ? hangup::is_ignored : hangup::is_handled;
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

/// Keeps what is no fault of the process that was looked at.
inline void keep_fault(const census_view& view, const std::error_code& ec) noexcept {
  for (const std::errc each :
       {std::errc::too_many_files_open, std::errc::too_many_files_open_in_system, std::errc::not_enough_memory})
    if (ec == each) view.fault = ec;
}

inline const process_details& census_process::origin() const {
  if (knows_origin) return *details;
  if (late.origin == nullptr) {
    late.origin = std::make_unique<process_details>();
    if (visible) {
      read_options what;
      what.cgroup = true;
      std::error_code ec;
      *late.origin = view->table->details(*info, what, ec);
      keep_fault(*view, ec);
      // Of one that is gone an empty answer is no answer: nobody would be its manager.
      late.gone = late.gone || ec || late.origin->cgroup_fault == std::errc::no_such_process;
    }
  }
  return *late.origin;
}

inline const std::vector<std::string>& census_process::own_arguments() const {
  // Of what can't be read just now no more is known than of its parent.
  if (!details->as_parent || info->state == process_state::waiting) return image->arguments;
  if (late.arguments == nullptr) {
    read_options what;
    what.arguments = true;
    what.max_arguments = most_arguments;
    std::error_code ec;
    auto own = std::make_unique<process_details>(view->table->details(*info, what, ec));
    keep_fault(*view, ec);
    if (ec || own->arguments_fault) own->arguments = image->arguments;
    late.arguments = std::move(own);
  }
  return late.arguments->arguments;
}

/// What the rules need of each process that is looked at. Its cgroup is no part of it: few are asked
/// who manages them.
inline read_options census_details(bool all_users) {
  read_options what = read_options::everything();
  what.cgroup = false;
  what.skip_copies = true;
  what.file_ids = false;  // of the executable alone, where the file at its path is another one
  what.variables = {"PWD"};
  what.max_arguments = most_arguments;
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
  read_options all = what;
  all.cgroup = true;
  all.skip_copies = false;
  const bool knows_origin = !stored || table.stores(all);
  view.read.emplace_back();  // of those that are not looked at
  const uid_t user = ::geteuid();
  for (const process_info& each : table) {
    census_process one;
    one.info = &each;
    one.knows_origin = knows_origin;
    one.details = one.image = &view.read.front();
    one.ended = has_ended(each);
    if (!each.kernel_thread && (options.all_users || each.user == user)) {
      std::error_code ec;
      const census_process* parent = nullptr;
      if (stored) one.details = table.stored_details(each);
      if (stored && one.details->as_parent) parent = view.find(each.parent);
      if (!stored || (one.details->as_parent && parent == nullptr)) {
        one.details = &view.read.emplace_back(table.details(each, all, ec));
        keep_fault(view, ec);
      }
      one.image = parent != nullptr ? parent->image : one.details;
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
    const process_details own = table.details(*self, all, ec);
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
  const std::string& path = of.image->executable.path;
  if (!path.empty()) return std::string(base_name(path));
  if (!of.image->arguments.empty()) return std::string(base_name(of.image->arguments.front()));
  return std::string(of.info->name());
}

inline bool same_file(const struct stat& a, const struct stat& b) noexcept {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// The file that runs under the pid of a process, wherever it is by now. False: it can't be told.
inline bool stat_executable(const census_process& of, struct stat& out) noexcept {
  char path[64];
  return platform::sys::fstatat(AT_FDCWD, platform::proc_path(path, of.pid(), "exe"), &out, 0) == 0;
}

}  // namespace instance_guard::detail
