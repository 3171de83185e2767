// layer 3: who holds a lock that could not be taken, as far as can be known.
//
// The record may be older than the holder: it is written after the lock is taken, and a holder
// may be unable to write it. A record whose process is dead, but whose warden lives, is the
// ordinary case of a killed holder whose children are being ended.
#pragma once

#include <optional>

#include "../file_descriptor.hpp"
#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "lock_name.hpp"
#include "lock_record.hpp"
#include "lock_self.hpp"

namespace instance_guard::detail {

enum class holder_state {
  live,      ///< the record's process has it
  cleaning,  ///< the record's process is dead, its warden lives
  unknown    ///< no record, or one of the dead: the holder has not written its own yet
};

inline holder_state judge_holder(const std::optional<lock_record>& record) noexcept {
  if (!record) return holder_state::unknown;
  if (is_alive(record->process)) return holder_state::live;
  return record->warden && is_alive(record->warden) ? holder_state::cleaning : holder_state::unknown;
}

/// Asks the system who listens on the socket lock: the holder, if it lives and can be told.
inline std::optional<lock_record> holder_by_socket(lock_scope scope, const lock_name& name) {
  const socket_name address(scope, platform::sys::geteuid(), name.view());
  const file_descriptor connection(platform::watch_socket_name(address.text, address.size));
  uid_t uid = 0;
  if (!connection || !platform::peer_user(connection.get(), uid)) return {};
  if (scope == lock_scope::user && uid != platform::sys::geteuid()) return {};
  const pid_t pid = platform::peer_process(connection.get());
  if (pid <= 0) return {};
  lock_record record = describe_process(pid);
  record.name = name.view();
  // It may have ended while it was looked at.
  if (platform::peer_process(connection.get()) != pid) return {};
  return record;
}

}  // namespace instance_guard::detail
