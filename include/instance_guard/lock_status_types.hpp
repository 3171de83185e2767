// layer 3: what query_lock(), list_locks() and stop_holder() tell. Plain values; none of them owns anything.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "pid_lockfile_types.hpp"
#include "process_identity.hpp"

namespace instance_guard {

/// A start that was refused.
struct refusal {
  std::chrono::system_clock::time_point at = {};
  pid_t pid = 0;  ///< for reading only: it may be somebody else's by now
  std::string started_from = {};
};

/// What a name is. A holder that is dead while the lock is held is cleaning up; a file that
/// nobody holds is what a holder left that did not end cleanly.
enum class lock_state { free, held, cleaning_up, abandoned };

/// The same name in scope user, held by another user. It does not refuse, but one should know.
struct other_holder {
  uid_t uid = 0;
  std::string user = {};
  pid_t pid = 0;  ///< 0: can't be told
};

/// What query_lock() found.
struct lock_status {
  std::string name = {};
  lock_scope scope = lock_scope::user;
  std::filesystem::path path = {};  ///< of the lock file, whether it is there or not
  lock_state state = lock_state::free;
  std::optional<lock_record> holder = {};  ///< also of an abandoned lock; empty: it can't be read
  bool replaced_code = false;              ///< the holder's executable was replaced since it started
  std::optional<std::chrono::system_clock::time_point> replaced_at = {};
  std::vector<process_identity> children = {};  ///< of the holder and its warden, with descendants
  std::vector<refusal> refusals = {};           ///< the last ones, oldest first
  std::vector<other_holder> others = {};        ///< of the same name, under other users
  std::string explanation = {};  ///< why `state` can't be told (a start would fail); a cure is in a second line
};

/// What stop_holder() did.
struct stop_result {
  std::optional<lock_record> holder = {};  ///< who had the name; empty: nobody
  bool ended = false;                      ///< it was asked to leave, and is gone
  bool killed = false;                     ///< SIGKILL was needed
  std::string explanation = {};            ///< why it was not stopped; a cure is in a second line
};

}  // namespace instance_guard
