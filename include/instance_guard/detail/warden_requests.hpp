// layer 3: the warden reads what its owner asks for.
#pragma once

#include "../platform/platform.hpp"
#include "warden_adopt.hpp"
#include "warden_credentials.hpp"
#include "warden_kill.hpp"
#include "warden_locks.hpp"
#include "warden_nested.hpp"
#include "warden_program.hpp"
#include "warden_spawn.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

INSTANCE_GUARD_NO_SANITIZE inline int take_signal(warden_state& warden, const wire::signal_request& request) noexcept {
  const int result = check_owner(warden, request.thread);
  if (result < 0) return result;
  take_adoptions(warden);
  for (const warden_child& each : warden.children) {
    if (each.token != request.token) continue;
    if (each.shares_group) {
      // The warden was sent it too? Then its sender told every process that it knows of.
      warden_heard last;
      hear_signals(warden);
      if (take_heard(warden, request.number, last)) return 0;
      note_passed(warden, request.number);
      return sys::kill(each.pid, request.number);
    }
    // Not reaped yet, so neither its pid nor the number of its group can be anybody else's.
    const int sent = sys::kill(-each.pid, request.number);
    return sent == -ESRCH ? sys::kill(each.pid, request.number) : sent;
  }
  return -ESRCH;
}

/// Somebody waits for an answer that comes later. True: the channel is kept.
INSTANCE_GUARD_NO_SANITIZE inline bool take_waiter(warden_state& warden, wire::kind what, int channel) noexcept {
  if (!warden.waiters.push({channel, what})) return false;
  warden.changed = true;
  return true;
}

/// Another process becomes the owner. It need not have the warden's rights, as the present one need
/// not: whatever it asks for is judged when it asks.
INSTANCE_GUARD_NO_SANITIZE inline int take_hand_over(warden_state& warden, pid_t owner, wire::received& got) noexcept {
  platform::process_stat facts;
  if (owner <= 0 || warden.has_program) return -EINVAL;
  int result = platform::read_process_stat(owner, facts);
  if (result == 0 && platform::can_read_rights) result = open_owner(warden, owner);
  if (result < 0) return result;
  warden.owner = owner;
  warden.owner_start = facts.start_time;
  close_fd(warden.owner_process);
  if (got.count > 1) {
    warden.owner_process = got.descriptors[1];
    got.descriptors[1] = -1;
  }
  return 0;
}

/// One message of the owner, in `message`. Closes what it does not keep.
INSTANCE_GUARD_NO_SANITIZE inline void take_request(warden_state& warden, const unsigned char* message,
                                                    wire::received& got) noexcept {
  const wire::header& head = *reinterpret_cast<const wire::header*>(message);
  const auto fits = [&](size_t size) noexcept { return !got.cut && got.size >= static_cast<long>(size); };
  const bool from_owner = got.sender == warden.owner || !platform::can_attest_senders;
  if (from_owner && fits(sizeof head) && head.what == wire::kind::goodbye) {
    warden.goodbye = true;
    begin_ending(warden, -1);
  } else if (from_owner && fits(sizeof head) && head.what == wire::kind::closed) {
    warden.owner_closed = true;
  } else if (got.count != 0) {
    const int channel = got.descriptors[0];
    int result = -EINVAL;
    bool kept = false;
    if (!from_owner || !fits(sizeof head)) {
      result = !from_owner ? -EPERM : got.full ? -EMFILE : -EINVAL;
    } else if (head.what == wire::kind::spawn) {
      renew_together(warden);
      take_spawn(warden, got);
      return;
    } else if (head.what == wire::kind::signal && fits(sizeof(wire::signal_request))) {
      result = take_signal(warden, *reinterpret_cast<const wire::signal_request*>(message));
    } else if (head.what == wire::kind::terminate && fits(sizeof(wire::terminate_request))) {
      kept = take_waiter(warden, head.what, channel);
      result = -ENOMEM;
      hear_signals(warden);
      if (kept && warden.phase == ending::none) note_who_was_told(warden);
      if (kept) begin_ending(warden, reinterpret_cast<const wire::terminate_request*>(message)->grace);
    } else if (head.what == wire::kind::wait_idle || head.what == wire::kind::look_idle) {
      kept = take_waiter(warden, head.what, channel);
      result = -ENOMEM;
    } else if (head.what == wire::kind::nested && fits(sizeof(wire::group_request))) {
      result = take_nested(warden, *reinterpret_cast<const wire::group_request*>(message), got);
      kept = result == 0;
    } else if ((head.what == wire::kind::keep_lock || head.what == wire::kind::replace_lock) &&
               fits(sizeof(wire::lock_request))) {
      const auto& request = *reinterpret_cast<const wire::lock_request*>(message);
      result = check_owner(warden, request.thread);
      if (result == 0) result = take_lock(warden, request, got);
    } else if (head.what == wire::kind::drop_lock && fits(sizeof(wire::lock_request))) {
      result = drop_lock(warden, reinterpret_cast<const wire::lock_request*>(message)->slot);
    } else if (head.what == wire::kind::mark && fits(sizeof(wire::mark_request))) {
      warden.mark = reinterpret_cast<const wire::mark_request*>(message)->target;
      warden.mark.first_parent = sys::getppid() == warden.owner ? warden.owner : 0;
      // An owner that became another user has a warden for each: each looks for its own user's.
      warden.mark.user = sys::geteuid();
      warden.marked = true;
      result = 0;
    } else if (head.what == wire::kind::hand_over && fits(sizeof(wire::hand_over_request))) {
      result = take_hand_over(warden, reinterpret_cast<const wire::hand_over_request*>(message)->owner, got);
    } else if (head.what == wire::kind::ping) {
      result = 0;
    }
    if (!kept) {
      answer(channel, result);
    } else {
      got.descriptors[0] = -1;
    }
  }
  for (unsigned i = 0; i < got.count; ++i) close_fd(got.descriptors[i]);
}

/// The owner's end of the channel is closed: it dies, or executes another program. What that one
/// starts is none of the group's.
INSTANCE_GUARD_NO_SANITIZE inline void note_exec_of_owner(warden_state& warden) noexcept {
  platform::process_stat facts;
  const bool lives = platform::read_process_stat(warden.owner, facts) == 0 && facts.start_time == warden.owner_start &&
                     facts.state != 'Z' && !facts.exiting;
  warden.replaced = warden.mark.replaced = lives ? platform::process_clock_now() : 0;
}

/// Takes some of the messages that are there. Sets owner_gone at the end of the channel.
INSTANCE_GUARD_NO_SANITIZE inline void take_requests(warden_state& warden) noexcept {
  alignas(16) unsigned char small[512];
  for (int i = 0; i < 64 && warden.channel >= 0; ++i) {
    spawn_slot* slot = spare_slot(warden);
    unsigned char* buffer = slot != nullptr ? slot->message : small;
    const size_t size = slot != nullptr ? sizeof slot->message - 1 : sizeof small;
    wire::received got;
    wire::receive(warden.channel, buffer, size, got);
    if (got.size == -EAGAIN || got.size == -ENOMEM || got.size == -ENOBUFS) return;
    if (got.size <= 0) {
      // Every copy of the owner's end is closed: it is dead, or has become another program.
      close_fd(warden.channel);
      if (!warden.goodbye) {
        warden.owner_gone = true;
        note_exec_of_owner(warden);
      }
      warden.owner_closed = true;
      return;
    }
    if (slot == nullptr) got.cut = true;
    take_request(warden, buffer, got);
  }
}

}  // namespace instance_guard::detail
