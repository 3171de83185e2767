// layer 3: giving every lock of a process to its child, without a moment in which nobody has them.
//
//   lock_hand_over_begin();                 first process
//   fork();                                 its child, or that one's child:
//     lock_take_over(ec);                     is the owner now; tells the first process
//   lock_hand_over_end(told);               first process: forgets them, and ends
#pragma once

#include <system_error>

#include "lock_fork.hpp"
#include "lock_session.hpp"
#include "lock_verify.hpp"

namespace instance_guard::detail {

/// The next forks of this process take the locks along.
inline void lock_hand_over_begin() noexcept { lock_process.handing_over = true; }

/// In the first process, after the child said that it has the locks, or that it has not.
inline void lock_hand_over_end(bool taken_over) noexcept {
  lock_change_scope scope;
  lock_process.handing_over = false;
  if (!taken_over) return;
  for (lock_slot& slot : lock_slots) {
    if (!owned_here(slot) || !begin_change(slot)) continue;
    close_slot_files(slot);
    end_change(slot, lock_slot::free);
  }
}

/// In the child: becomes the owner of all locks; records and sockets say so. `ec`: the first
/// record that could not be written; the locks are this process's all the same.
inline void lock_take_over(std::error_code& ec) noexcept {
  ec.clear();
  lock_change_scope scope;
  lock_process.handing_over = false;
  if (unsigned* page = lock_owner_page.load(std::memory_order_relaxed)) *page = 1;
  const process_identity self = process_identity::self();
  for (lock_slot& slot : lock_slots) {
    if (!begin_change(slot)) continue;
    slot.owner.store(self.pid, std::memory_order_relaxed);
    // A second listen() names this process to whoever asks for the socket's owner.
    if (slot.socket.intact()) platform::renew_socket_owner(slot.socket.get());
    auto* session = static_cast<lock_session*>(slot.session.load(std::memory_order_relaxed));
    if (session != nullptr) {
      session->record.process = self;
      const int result = rewrite_record(*session, slot, scope);
      if (result != 0 && !ec) ec.assign(-result, std::system_category());
    }
    end_change(slot);
  }
}

}  // namespace instance_guard::detail
