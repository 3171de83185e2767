// layer 3: who holds a lock that could not be taken, as far as can be known.
//
// The record may be older than the holder: it is written after the lock is taken, and a holder
// may be unable to write it. A record whose process is dead, but whose warden lives, is the
// ordinary case of a killed holder whose children are being ended.
#pragma once

#include <cerrno>
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

/// What is known of whoever listens on the socket lock.
enum class listener_state {
  none,    ///< nobody listens, now
  untold,  ///< somebody does; the system won't say who, or its queue is full
  gone,    ///< the process that did has ended, its heir keeps the socket
  live     ///< `record` is what can be seen of it
};
struct socket_listener {
  listener_state state = listener_state::none;
  std::optional<lock_record> record = {};
};

/// Asks the system, through a connection. A stranger's socket in scope user is nobody's.
inline socket_listener listener_of(lock_scope scope, const lock_name& name) {
  const socket_name address(scope, platform::sys::geteuid(), name.view());
  const int connected = platform::watch_socket_name(address.text, address.size);
  if (connected == -EAGAIN) return {listener_state::untold, {}};
  const file_descriptor connection(connected);
  uid_t uid = 0;
  if (!connection || !platform::peer_user(connection.get(), uid)) return {};
  if (scope == lock_scope::user && uid != platform::sys::geteuid()) return {};
  const pid_t pid = platform::peer_process(connection.get());
  if (pid <= 0) return {pid == -ESRCH ? listener_state::gone : listener_state::untold, {}};
  socket_listener result{listener_state::live, describe_process(pid)};
  result.record->name = name.view();
  // It may have ended while it was looked at.
  if (platform::peer_process(connection.get()) != pid) return {listener_state::gone, {}};
  return result;
}

/// The holder by its socket, if it lives and can be told.
inline std::optional<lock_record> holder_by_socket(lock_scope scope, const lock_name& name) {
  return listener_of(scope, name).record;
}

}  // namespace instance_guard::detail
