// layer 3: making a holder leave, and helping a warden that somebody stopped.
//
// Signals go to a process whose whole identity was checked, through a pidfd where there is one,
// and only to one that the evidence says holds the lock. In doubt nothing is sent.
#pragma once

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "../pid_lockfile_types.hpp"
#include "../process_identity.hpp"
#include "lock_fault.hpp"
#include "lock_holder.hpp"
#include "lock_name.hpp"

namespace instance_guard::detail {

/// The state letter of exactly this process, or '\0'.
inline char state_of(const process_identity& who) noexcept {
  std::error_code ec;
  if (!who.complete() || process_identity::of(who.pid, ec) != who || ec) return '\0';
  platform::process_stat facts;
  if (platform::read_process_stat(who.pid, facts) != 0 || facts.start_time != who.start_time) return '\0';
  return facts.state;
}

inline bool is_stopped(const process_identity& who) noexcept {
  const char state = state_of(who);
  return state == 'T' || state == 't';
}

inline bool signal_exactly(const process_identity& who, int number) noexcept {
  std::error_code ec;
  process_handle handle = process_handle::open(who, ec);
  if (!ec) handle.signal(number, ec);
  return !ec;
}

/// A record speaks only for processes of the user whose record it is: in scope host anybody may
/// write one, and name a process of root.
inline bool belongs_to(const process_identity& process, uid_t user) noexcept {
  uid_t owner = 0;
  return platform::user_of_process(process.pid, owner) == 0 && owner == user;
}

/// A stopped warden keeps the name for ever: it is told to go on.
inline void continue_stopped_warden(const lock_record& holder) noexcept {
  if (holder.warden && is_stopped(holder.warden) && belongs_to(holder.warden, holder.uid))
    signal_exactly(holder.warden, SIGCONT);
}

/// ... and if it stays stopped (somebody traces it, or stops it again), killed. False: it is not
/// stopped, then it is busy with children that can't be killed, and the name stays theirs.
inline bool kill_stopped_warden(const lock_record& holder) noexcept {
  return holder.warden && is_stopped(holder.warden) && belongs_to(holder.warden, holder.uid) &&
         signal_exactly(holder.warden, SIGKILL);
}

inline bool is_own_ancestor(pid_t pid) noexcept {
  platform::process_stat facts;
  pid_t at = platform::sys::getpid();
  for (int depth = 0; depth < 256 && at > 0; ++depth) {
    if (at == pid) return true;
    if (platform::read_process_stat(at, facts) != 0) return false;
    at = facts.parent;
  }
  return false;
}

/// The command that stops a managed holder, or empty.
inline std::string manager_stop_command(const std::string& origin) {
  constexpr std::string_view unit = "systemd unit ";
  constexpr std::string_view user_unit = "systemd user unit ";
  if (origin.compare(0, unit.size(), unit) == 0) return joined({"systemctl stop ", origin.substr(unit.size())});
  if (origin.compare(0, user_unit.size(), user_unit) == 0)
    return joined({"systemctl --user stop ", origin.substr(user_unit.size())});
  if (same(origin.substr(0, 8), "launchd "))
    return joined({"launchctl bootout gui/", std::to_string(::geteuid()), "/", origin.substr(8)});
  return {};
}

/// Why a holder is let be, though it was to be stopped.
inline constexpr std::string_view not_here = "not stopped: it is in another pid namespace";
inline constexpr std::string_view not_above = "not stopped: it is this process or an ancestor of it";
inline constexpr std::string_view not_proven = "not stopped: that it is the holder can't be proven";

/// The one of them that an explanation has, or nothing.
inline std::string_view not_stopped_because(std::string_view explanation) noexcept {
  for (const std::string_view each : {not_here, not_above, not_proven})
    if (explanation.find(each) != std::string_view::npos) return each;
  return {};
}

/// What stopped a holder, or tried to.
struct stop_outcome {
  lock_fault fault = {};  ///< why it did not try, or could not; none: the holder is gone
  bool killed = false;    ///< SIGKILL was sent
};

/// Stops the holder: SIGTERM, its grace + 2 s, SIGKILL. Its warden may still be busy afterwards.
inline stop_outcome end_holder(const lock_record& holder, const std::filesystem::path& path,
                               const stop_options& options, const lock_name& name) {
  const std::string title = joined({name.view(), ": already running: pid ", std::to_string(holder.process.pid)});
  if (is_elsewhere(holder.process))
    return {make_fault(errc::already_running, joined({title, ", ", not_here}), "stop it there")};
  // Both what it says and what the system says now: a manager would start it again at once.
  std::string managed = managing_unit(holder.process.pid);
  for (const char* manager : {"systemd ", "launchd "})
    if (managed.empty() && same(holder.started_from.substr(0, 8), manager)) managed = holder.started_from;
  if (!managed.empty() && !options.managed)
    return {make_fault(errc::managed_holder, joined({title, " is ", managed, ", which would be started again"}),
                       manager_stop_command(managed))};
  if (is_own_ancestor(holder.process.pid)) return {make_fault(errc::already_running, joined({title, ", ", not_above}))};
  std::error_code ec;
  process_handle handle = process_handle::open(holder.process, ec);
  if (is(ec, std::errc::no_such_process)) {
    if (!is_alive(holder.process)) return {};
    return {make_fault(std::make_error_code(std::errc::operation_not_permitted),
                       joined({title, " could not be stopped: it is hidden from this user"}),
                       "stop it as its user or root")};
  }
  // Who listens on the socket has the name. Failing that the record is as good as who can write it:
  // it must speak of a process of its own user.
  struct stat file = {};
  const bool file_known = ::stat(path.c_str(), &file) == 0;
  const bool same_user = belongs_to(holder.process, file_known ? file.st_uid : holder.uid);
  const auto listener = holder_by_socket(options.scope, name);
  const bool proven = listener ? listener->process == holder.process : same_user;
  if (ec || !proven) return {make_fault(errc::already_running, joined({title, ", ", not_proven}), "stop it by hand")};
  stop_outcome result;
  handle.signal(SIGTERM, ec);
  if (!ec) {
    std::chrono::milliseconds limit = longer(holder.grace.count(), 2'000);
    if (options.grace) limit = *options.grace;
    if (handle.wait_for(limit, ec)) return result;
    handle.signal(SIGKILL, ec);
    result.killed = !ec;
    // Never wait without bound after a kill: it may be in uninterruptible sleep.
    if (!ec && handle.wait_for(std::chrono::milliseconds(10'000), ec)) return result;
  }
  if (is(ec, std::errc::no_such_process)) return result;
  result.fault = make_fault(ec ? ec : make_error_code(errc::timed_out),
                            joined({title, " could not be stopped", ec ? ": " : "", ec ? ec.message() : ""}),
                            "stop it as its user or root");
  return result;
}

/// For a start with lock_options::replace.
inline lock_fault replace_holder(const lock_record& holder, const std::filesystem::path& path,
                                 const lock_options& options, const lock_name& name) {
  stop_options how;
  how.scope = options.scope;
  return end_holder(holder, path, how, name).fault;
}

}  // namespace instance_guard::detail
