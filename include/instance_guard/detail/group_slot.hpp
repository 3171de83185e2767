// layer 3: every process group of this process, in fixed slots; what ends them on the way out.
//
// Async-signal-safe throughout: atomics of fixed size, raw system calls, no allocation, no locks.
// A process_group is a handle to a slot, so that its destructor, a signal handler and exit(3) in
// another thread all see the same, and whatever ends a group first ends it once.
//
// One group may have several wardens: an owner that has given up rights gets a new one for the
// children to come, the old ones keep theirs.
#pragma once

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <sys/types.h>

#include "../platform/platform.hpp"
#include "deadline.hpp"
#include "lock_slot.hpp"
#include "start_board.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// The owner's end of one warden. A zero is no descriptor before claim_group_slot() was there: so 256
/// slots take no room in the program's file, and a compiler has less to work out.
struct warden_link {
  std::atomic<int> channel{0};
  std::atomic<pid_t> pid{0};
  std::atomic<std::uint64_t> start_time{0};
  std::atomic<int> watch{0};                      ///< its state file, where it is not this process's child
  std::atomic<int> adoptions{0};                  ///< for children that are started directly
  std::atomic<const start_word*> board{nullptr};  ///< see start_board.hpp

  void clear() noexcept {
    for (std::atomic<int>* each : {&channel, &watch, &adoptions}) each->store(-1, std::memory_order_relaxed);
  }

  void close() noexcept {
    for (std::atomic<int>* each : {&channel, &watch, &adoptions}) {
      const int descriptor = each->exchange(-1, std::memory_order_relaxed);
      if (descriptor >= 0) platform::sys::close(descriptor);
    }
    leave_board(board.exchange(nullptr, std::memory_order_relaxed));
    pid.store(0, std::memory_order_relaxed);
  }
};

inline constexpr int max_links = 8;

struct group_slot {
  /// starting: by one thread. ending: by any number of threads and handlers at the same time.
  enum : int { free, starting, live, ending };

  std::atomic<int> state{free};
  std::atomic<unsigned> generation{0};  ///< grows with each end, so that old handles don't match
  std::atomic<int> enders{0};           ///< who must not find the channels closed
  std::atomic<pid_t> owner{0};
  std::atomic<int> parent{0};          ///< slot of the group it is nested in
  std::atomic<std::int64_t> grace{0};  ///< ns
  std::atomic<int> stop_signal{0};
  std::atomic<bool> no_new_privileges{false};
  std::atomic<bool> keep_session{false};
  std::atomic<bool> inherit_descriptors{false};
  std::atomic<int> mechanism{0};  ///< containment
  std::atomic<std::uint64_t> pid_namespace{0};
  std::atomic<std::uint64_t> last_token{0};  ///< for children that are started directly
  std::atomic<int> links{0};
  warden_link link[max_links];
  std::mutex change;         ///< for a new link, and for what follows
  char mark_entry[64] = {};  ///< "INSTANCE_GUARD_MARK=…" for children; may be empty
  bool is_marked = false;    ///< then for wardens to come:
  alignas(stray_target) unsigned char mark[sizeof(stray_target)] = {};
};

inline constexpr int max_groups = 256;
inline constinit group_slot group_slots[max_groups];

/// This very process started the group. False in every copy of it.
inline bool owned_here(const group_slot& slot) noexcept {
  return slot.owner.load(std::memory_order_relaxed) == platform::sys::getpid();
}

inline int slot_index(const group_slot& slot) noexcept { return static_cast<int>(&slot - group_slots); }

/// True if the warden lives and is not stopped. One system call.
inline bool is_healthy(const warden_link& link) noexcept {
  const pid_t pid = link.pid.load(std::memory_order_relaxed);
  if (pid <= 0) return false;
  const int watch = link.watch.load(std::memory_order_relaxed);
  if (watch < 0) {
    siginfo_t info = {};
    const int result = platform::wait_for_child_change(pid, info);
    if (result != -ECHILD) return result == 0 && info.si_pid == 0;
  }
  // A nested warden, or one that was handed over, has another parent. So has one whose status
  // the program has taken with __WALL: then it is gone.
  platform::process_stat facts;
  const int result = watch >= 0 ? platform::read_open_stat(watch, facts) : platform::read_process_stat(pid, facts);
  return result == 0 && facts.state != 'Z' && facts.state != 'X' && facts.state != 'T' &&
         facts.start_time == link.start_time.load(std::memory_order_relaxed);
}

/// As lock_keeper::healthy: the warden that starts children now.
inline bool group_is_healthy(int index) noexcept {
  const group_slot& slot = group_slots[index];
  const int links = slot.links.load(std::memory_order_acquire);
  return links > 0 && is_healthy(slot.link[links - 1]);
}

/// Sends a word on the channel. True: it has arrived in the queue.
inline bool say(const warden_link& link, wire::kind what) noexcept {
  const wire::header word = {what, 0};
  for (int tries = 0; tries < 100; ++tries) {
    const long result = wire::send(link.channel.load(std::memory_order_relaxed), &word, sizeof word);
    if (result != -EAGAIN) return result >= 0;
    platform::sys::sleep_for(1'000'000);
  }
  return false;
}

/// Looks for a moment whether something can be read, before the caller sleeps for it: an answer of microseconds is
/// near, and to be woken on a processor that sleeps takes longer. Async-signal-safe.
inline void look_for_answer(int descriptor) noexcept {
  constexpr std::int64_t moment = 60'000;  // ns
  const std::int64_t end = platform::sys::monotonic_now() + moment;
  pollfd entry = {descriptor, POLLIN, 0};
  while (platform::sys::ppoll(&entry, 1, 0, nullptr) == 0 && platform::sys::monotonic_now() < end)
    platform::sys::yield();
}

/// Waits until the warden says that nothing is left. Does not take the word, so that several
/// threads may hear it. False: it is dead or stopped, or the time passed.
inline bool hear_empty(const warden_link& link, const deadline& end) noexcept {
  look_for_answer(link.channel.load(std::memory_order_relaxed));
  for (;;) {
    std::int64_t left = end.left();
    if (left < 0 || left > 200'000'000) left = 200'000'000;
    pollfd entry = {link.channel.load(std::memory_order_relaxed), POLLIN, 0};
    if (platform::sys::ppoll(&entry, 1, left, nullptr) > 0) {
      wire::header word = {};
      wire::received got;
      wire::receive(entry.fd, &word, sizeof word, got, MSG_PEEK);
      if (got.size <= 0 && got.size != -EAGAIN) return false;
      if (got.size > 0) return word.what == wire::kind::empty;
    } else if (end.passed() || !is_healthy(link)) {
      return false;
    }
  }
}

/// Waits until the warden has gone, and reaps it. False: it still lives.
inline bool bury(const warden_link& link, const deadline& end) noexcept {
  const pid_t pid = link.pid.load(std::memory_order_relaxed);
  std::int64_t closed_pause = 20'000;
  for (std::int64_t pause = 100'000;; pause = pause < 10'000'000 ? pause * 2 : pause) {
    const int result = platform::reap_child(pid);
    if (result > 0) return true;
    if (result < 0) {  // another's child, or reaped already: the end of the channel tells
      pollfd entry = {link.channel.load(std::memory_order_relaxed), 0, 0};
      const int ready = entry.fd < 0 ? 1 : platform::sys::ppoll(&entry, 1, 0, nullptr);
      if (entry.fd < 0 || (ready > 0 && entry.revents != 0) || (ready < 0 && !is_healthy(link))) return true;
    }
    if (end.passed()) return false;
    // Its end of the channel closes shortly before it can be reaped.
    pollfd entry = {link.channel.load(std::memory_order_relaxed), 0, 0};
    if (entry.fd >= 0 && platform::sys::ppoll(&entry, 1, pause, nullptr) == 0) continue;
    platform::sys::sleep_for(closed_pause);
    if (closed_pause < 10'000'000) closed_pause *= 2;
  }
}

/// One that somebody has stopped must go on, to end what it has.
inline void wake(const warden_link& link) noexcept {
  const pid_t pid = link.pid.load(std::memory_order_relaxed);
  siginfo_t info = {};
  // Only a child that is not reaped yet: nobody else can have its pid.
  if (pid > 0 && platform::wait_for_child_change(pid, info) == 0 && info.si_pid == pid)
    platform::sys::kill(pid, SIGCONT);
}

/// Ends everything in the group, then lets its locks go, in this order. Several may do so at
/// once, also a handler that has interrupted one of them: each step may be done twice.
/// True: nothing is left, and the wardens have gone.
inline bool end_wardens(group_slot& slot, std::int64_t limit) noexcept {
  slot.enders.fetch_add(1, std::memory_order_acq_rel);
  const int links = slot.links.load(std::memory_order_acquire);
  const deadline end = deadline::in_nanoseconds(limit);
  bool said[max_links] = {};
  bool empty = true;
  for (int i = 0; i < links; ++i) {
    wake(slot.link[i]);
    said[i] = say(slot.link[i], wire::kind::goodbye);
  }
  for (int i = 0; i < links; ++i)
    if (!said[i] || !hear_empty(slot.link[i], end)) empty = false;
  lock_close_kept(slot_index(slot));
  for (int i = 0; i < links; ++i) say(slot.link[i], wire::kind::closed);
  // It has only to exit now, which may take long where others have the processors.
  const deadline burial = deadline::in_nanoseconds(empty ? 10'000'000'000 : 0);
  for (int i = 0; i < links; ++i)
    if (!bury(slot.link[i], burial)) empty = false;
  slot.enders.fetch_sub(1, std::memory_order_acq_rel);
  return empty;
}

/// Claims the end of a group; false: it has ended, or is not this process's.
inline bool begin_end(group_slot& slot) noexcept {
  int from = group_slot::live;
  return owned_here(slot) && (slot.state.compare_exchange_strong(from, group_slot::ending, std::memory_order_acq_rel) ||
                              from == group_slot::ending);
}

/// How long the end of a group may take: its grace and 10 s.
inline std::int64_t end_limit(const group_slot& slot) noexcept {
  constexpr std::int64_t more = 10'000'000'000;
  const std::int64_t grace = slot.grace.load(std::memory_order_relaxed);
  return grace > INT64_MAX - more ? INT64_MAX : grace + more;
}

/// Ends every group of this process and waits for it, each at most its grace and 10 s, or
/// `limit` nanoseconds. For exit and signal handlers; does nothing in a forked copy.
inline void groups_goodbye_all(std::int64_t limit = -1) noexcept {
  // A nested group ends with the one that it is in.
  for (group_slot& slot : group_slots)
    if (slot.parent.load(std::memory_order_relaxed) < 0 && begin_end(slot))
      end_wardens(slot, limit >= 0 ? limit : end_limit(slot));
}

}  // namespace instance_guard::detail
