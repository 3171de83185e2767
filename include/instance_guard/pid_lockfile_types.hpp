// layer 3: what a pid_lockfile is asked for, and what it tells: options, record, status.
//
// Plain values; none of them owns anything. A lock_record is read from a file that anybody may
// have written: it informs, and finds a process to stop after its identity was checked; whether
// a name is taken is decided by the kernel's lock alone.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <system_error>
#include <utility>
#include <vector>

#include "error.hpp"
#include "process_identity.hpp"

namespace instance_guard {

/// Who shares a name: the processes of one user, or all of this host.
enum class lock_scope { user, host };

/// How a name is taken.
struct lock_options {
  lock_scope scope = lock_scope::user;

  /// Where the lock files are; empty: default_lock_directory(scope), which depends on nothing in
  /// the environment. A relative path is resolved at the call. The last part is made where it is
  /// missing. Two starts with different directories still find each other by the socket lock.
  std::filesystem::path directory = {};

  /// How long to wait for a live holder to leave; no_limit waits for ever.
  std::chrono::milliseconds wait{0};

  /// How long to wait for the children of a holder that is dead. Empty: its grace + 10 s.
  /// A warden that somebody stopped is continued, and killed when this time is over.
  std::optional<std::chrono::milliseconds> cleanup_wait = {};

  /// Stop a live holder: SIGTERM, its grace + 2 s, SIGKILL. Never one that belongs to a service
  /// manager (errc::managed_holder), never this process or one of its ancestors.
  bool replace = false;

  std::string version = {};  ///< of the program; recorded, shown, compared
  /// What the record describes instead of this process: the command that it runs for somebody.
  /// Its executable is looked up as execvp(3) would.
  std::vector<std::string> arguments = {};
  bool allow_network_file_system = false;  ///< see errc::network_file_system
};

/// A holder that was killed, whose strays have yet to be looked for.
struct killed_holder {
  process_identity process = {};
  uid_t user = static_cast<uid_t>(-1);  ///< who owned the file that said so
  std::chrono::milliseconds grace{0};
  std::string mark = {};
  process_identity warden = {};    ///< with control_group
  std::string control_group = {};  ///< as in lock_record
};

/// What a lock file says of its holder.
struct lock_record {
  process_identity process = {};  ///< who has the name
  process_identity warden = {};   ///< who ends its children after it; nobody without a group
  std::string name = {};          ///< as it was asked for, in lower case
  std::string version = {};
  std::string user = {};  ///< the user's name, or its number
  std::string executable = {};
  std::string started_from = {};            ///< "systemd unit shiva.service", "terminal /dev/pts/3", ...
  std::vector<std::string> arguments = {};  ///< with argument 0; the last may be missing (4 KiB in all)
  std::filesystem::path working_directory = {};
  std::chrono::system_clock::time_point acquired_at = {};
  std::chrono::milliseconds grace{0};  ///< between stop signal and SIGKILL of its children
  std::string mark = {};               ///< what its strays are told by, or empty; see detail/stray_sweep.hpp
  /// Path of the control group of all that it starts, where one was delegated; else empty (cgroups(7)).
  std::string control_group = {};
  /// Killed before it, oldest first, and pid 0 behind the last: a holder that is killed while it ends
  /// their strays hands the duty on to the next. Read from a file also the holder itself, once for each of its
  /// wardens besides the one above (it has several once its rights have changed).
  std::array<killed_holder, 4> unswept = {};
  std::string host = {};  ///< only informs: names of hosts change
  uid_t uid = static_cast<uid_t>(-1);
  std::uint64_t executable_device = 0;  ///< of the file it runs, as it was at the start
  std::uint64_t executable_inode = 0;
};

/// How stop_holder() makes a holder leave.
struct stop_options {
  lock_scope scope = lock_scope::user;
  std::filesystem::path directory = {};                 ///< as in lock_options
  std::optional<std::chrono::milliseconds> grace = {};  ///< before SIGKILL; empty: its own + 2 s
  bool managed = false;                                 ///< also one that a service manager would start again
};

#if INSTANCE_GUARD_EXCEPTIONS
/// Another process has the name. code() is errc::already_running or errc::still_cleaning_up.
class already_running : public std::system_error {
 public:
  already_running(std::error_code code, const std::string& what, std::optional<lock_record> holder)
      : std::system_error(code, what), holder_(std::move(holder)) {}

  /// Who has it; empty when its record can't be read.
  const std::optional<lock_record>& holder() const noexcept { return holder_; }

 private:
  std::optional<lock_record> holder_;
};
#endif

}  // namespace instance_guard
