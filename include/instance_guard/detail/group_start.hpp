// layer 3: the owner starts a warden for a group.
#pragma once

#include <dirent.h>
#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "group_keep.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "warden_loop.hpp"
#include "warden_start.hpp"

namespace instance_guard::detail {

inline constexpr std::int64_t start_limit = 10'000'000'000;  // ns

/// What an exec of the owner would pass on, besides 0, 1 and 2. 0, or a negated errno: that can't be told
/// (no /proc: a group can't be kept together then anyway), or it is too much.
inline int list_inherited(warden_state& state) noexcept {
  DIR* directory = ::opendir("/dev/fd");
  if (directory == nullptr) return errno == ENOENT || errno == ENOTDIR ? -ENOSYS : -errno;
  bool complete = true;
  while (const dirent* each = ::readdir(directory)) {
    int number = 0;
    for (const char* at = each->d_name; *at != '\0' && number >= 0; ++at)
      number = *at < '0' || *at > '9' || number > 100'000'000 ? -1 : number * 10 + (*at - '0');
    const int flags = number > 2 ? ::fcntl(number, F_GETFD) : -1;
    if (flags < 0 || (flags & FD_CLOEXEC) != 0) continue;
    complete = state.inherited_count < max_inherited;
    if (!complete) break;
    state.inherited[state.inherited_count++] = number;
  }
  ::closedir(directory);
  return complete ? 0 : -EMFILE;
}

/// Starts a process that becomes the warden. Its pid, or a negated errno.
inline long fork_warden(const group_slot& slot, int channel, int owner_process) noexcept {
  warden_state* state = new_warden_state();
  if (state == nullptr) return -ENOMEM;
  state->channel = channel;
  state->owner_process = owner_process;
  state->owner = platform::sys::getpid();
  state->grace = slot.grace.load(std::memory_order_relaxed);
  state->stop_signal = slot.stop_signal.load(std::memory_order_relaxed);
  state->keep_session = slot.keep_session.load(std::memory_order_relaxed);
  const int listed = slot.inherit_descriptors.load(std::memory_order_relaxed) ? list_inherited(*state) : 0;
  if (listed != 0) {
    delete_warden_state(state);
    return listed;
  }
  // The number of a session is not given out again while somebody is in it.
  file_descriptor leader;
  if (state->keep_session && ::getsid(0) != state->owner)
    leader = above_streams(platform::sys::pidfd_open(::getsid(0)));
  state->session_leader = leader.get();
  platform::process_stat facts;
  if (platform::read_process_stat(state->owner, facts) == 0) state->owner_start = facts.start_time;
  platform::sys::signal_bits before = 0;
  platform::sys::set_signal_mask(platform::sys::all_signals, &before);
  const long pid = start_warden(*state, 0);
  platform::sys::set_signal_mask(before);
  delete_warden_state(state);
  return pid;
}

/// Waits for the hello of a warden, and adds it to the slot, for publish_link. Its pid and whether it is a child of the
/// caller; or, before its pid is known, the warden that starts it. 0, or a negated errno.
inline int add_link(group_slot& slot, file_descriptor channel, int hello_end, pid_t child, bool is_own_child,
                    const warden_link* starter = nullptr) noexcept {
  const int index = slot.links.load(std::memory_order_relaxed);
  warden_link& link = slot.link[index];
  link.pid.store(child, std::memory_order_relaxed);
  // On a busy machine its hello takes long: meanwhile it must be known by more than its pid.
  platform::process_stat facts;
  if (child > 0 && !is_own_child && platform::read_process_stat(child, facts) == 0)
    link.start_time.store(facts.start_time, std::memory_order_relaxed);
  wire::answer hello;
  file_descriptor reader;
  const long size = await_answer(starter != nullptr ? *starter : link, hello_end, &hello, sizeof hello,
                                 deadline::in_nanoseconds(start_limit), false, &reader);
  int result = size < 0 ? static_cast<int>(size) : -hello.error;
  if (result == 0 && (hello.head.what != wire::kind::hello || (child > 0 && hello.pid != child))) result = -EPROTO;
  if (result < 0) {
    channel.reset();  // then it ends by itself
    if (child > 0) bury(link, deadline::in_nanoseconds(1'000'000'000));
    link.pid.store(0, std::memory_order_relaxed);
    return result;
  }
  link.pid.store(hello.pid, std::memory_order_relaxed);
  link.start_time.store(hello.start_time, std::memory_order_relaxed);
  if (!is_own_child)
    link.watch.store(above_streams(platform::open_process_stat(hello.pid)).release(), std::memory_order_relaxed);
  link.board.store(view_board(reader.get()), std::memory_order_relaxed);
  link.channel.store(channel.release(), std::memory_order_relaxed);
  slot.mechanism.store(static_cast<int>(hello.token), std::memory_order_relaxed);
  return 0;
}

/// From now on other threads ask the warden that was added last.
inline void publish_link(group_slot& slot) noexcept { slot.links.fetch_add(1, std::memory_order_release); }

/// One more warden for the group, in the caller's present state, for publish_link. The slot's change mutex is held,
/// or nobody else knows the slot yet. 0, or a negated errno.
inline int start_link(group_slot& slot) noexcept {
  if (slot.links.load(std::memory_order_relaxed) == max_links) return -EKEYREJECTED;
  if (!platform::forks_into_own_pid_namespace()) return -EKEYREJECTED;  // the warden would be init there
  int result = register_fork_gate();
  if (result < 0) return result;
  const gate_pass pass;
  file_descriptor ends[2];
  result = make_channel(ends);
  if (result < 0) return result;
  result = platform::attest_senders(ends[1].get());
  if (result < 0) return result;
  const file_descriptor self = above_streams(platform::sys::pidfd_open(platform::sys::getpid()));
  const long pid = fork_warden(slot, ends[1].get(), self.get());
  if (pid < 0) return static_cast<int>(pid);
  ends[1].reset();
  const int hello_end = ends[0].get();
  return add_link(slot, std::move(ends[0]), hello_end, static_cast<pid_t>(pid), true);
}

/// The same for a group within another, for publish_link: that one's warden starts it.
inline int start_nested(group_slot& slot, const warden_link& above) noexcept {
  file_descriptor ends[2], own;
  {
    const gate_pass pass;
    int result = make_channel(ends);
    if (result == 0) result = platform::attest_senders(ends[1].get());
    if (result < 0) return result;
    wire::group_request request;
    request.grace = slot.grace.load(std::memory_order_relaxed);
    request.stop_signal = slot.stop_signal.load(std::memory_order_relaxed);
    request.thread = asking_thread();
    const int channel = ends[1].get();
    result = send_request(above, &request, sizeof request, nullptr, 0, &channel, 1, own);
    if (result < 0) return result;
    ends[1].reset();
  }
  return add_link(slot, std::move(ends[0]), own.get(), 0, false, &above);
}

/// A new warden for a group that has one: it gets what the first one had. The slot's change mutex
/// is held. 0, or a negated errno.
inline int renew_link(group_slot& slot) noexcept {
  int result = start_link(slot);
  if (result < 0) return result;
  warden_link& link = slot.link[slot.links.load(std::memory_order_relaxed)];
  result = give_kept_locks(slot, link);
  if (result == 0 && slot.is_marked) result = tell_mark(link, slot);
  if (result == 0) {
    publish_link(slot);
    return 0;
  }
  // Its children would outlive the locks: it starts none, and ends when nobody is at its channel.
  platform::sys::close(link.channel.exchange(-1, std::memory_order_relaxed));
  bury(link, deadline::in_nanoseconds(1'000'000'000));
  link.close();
  return result;
}

/// Claims a free slot. -1: all are taken.
inline int claim_group_slot() noexcept {
  for (group_slot& slot : group_slots) {
    int from = group_slot::free;
    if (!slot.state.compare_exchange_strong(from, group_slot::starting, std::memory_order_acq_rel)) continue;
    for (warden_link& link : slot.link) link.clear();
    slot.owner.store(platform::sys::getpid(), std::memory_order_release);  // from now on a copy may close them
    slot.parent.store(-1, std::memory_order_relaxed);
    slot.pid_namespace.store(platform::pid_namespace_of(platform::sys::getpid()), std::memory_order_relaxed);
    slot.links.store(0, std::memory_order_relaxed);
    slot.keep_session.store(false, std::memory_order_relaxed);
    slot.inherit_descriptors.store(false, std::memory_order_relaxed);
    slot.mark_entry[0] = '\0';
    slot.is_marked = false;
    return slot_index(slot);
  }
  return -1;
}

/// Gives a slot back. Its wardens have ended, or end by themselves.
inline void free_group_slot(group_slot& slot) noexcept {
  // A handler of another thread may still be waiting on the channels.
  for (int i = 0; i < 2'000 && slot.enders.load(std::memory_order_acquire) != 0; ++i)
    platform::sys::sleep_for(1'000'000);
  if (slot.enders.load(std::memory_order_acquire) != 0) return;
  slot.generation.fetch_add(1, std::memory_order_relaxed);
  slot.links.store(0, std::memory_order_release);
  for (warden_link& link : slot.link) link.close();
  slot.owner.store(0, std::memory_order_relaxed);
  slot.state.store(group_slot::free, std::memory_order_release);
}

/// Does `what` with a warden that has the caller's present rights. That is the newest one most of the
/// time; an older one where rights come and go (threads that differ, seteuid back and forth); else a
/// new one, which is started for it.
template <class What>
inline int with_present_rights(group_slot& slot, What what) noexcept {
  int links = slot.links.load(std::memory_order_acquire);
  if (links <= 0) return -EPIPE;
  int result = -EKEYREJECTED;
  for (int index = links - 1; index >= 0 && result == -EKEYREJECTED; --index) result = what(slot.link[index], index);
  for (int tries = 0; result == -EKEYREJECTED && tries < 2; ++tries) {
    {
      const std::lock_guard<std::mutex> change(slot.change);
      // Another thread may have done it meanwhile.
      if (slot.links.load(std::memory_order_relaxed) == links) {
        const int started = renew_link(slot);
        if (started < 0) return started;
      }
      links = slot.links.load(std::memory_order_relaxed);
    }
    result = what(slot.link[links - 1], links - 1);
  }
  return result;
}

}  // namespace instance_guard::detail
