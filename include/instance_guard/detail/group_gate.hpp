// layer 3: fork and the descriptors of a group.
//
// A copy of the owner must not keep the channel to the warden open: its end-of-file is how the
// warden learns that the owner is dead. (It has a pidfd as well, but not everywhere.) So fork
// waits until no request is half sent, and the child closes what it inherited.
#pragma once

#include <pthread.h>

#include <atomic>

#include "../platform/platform.hpp"
#include "group_slot.hpp"

namespace instance_guard::detail {

struct fork_gate {
  static constexpr unsigned forking = 1u << 31;
  std::atomic<unsigned> inside{0};        ///< threads inside, and whether somebody forks
  std::atomic<int> registered{0};         ///< 1: being done, 2: done
  std::atomic<bool> handing_over{false};  ///< the next fork's child takes the groups along
};
inline constinit fork_gate the_gate;

/// While one lives, no fork(3) of another thread copies a half-sent request. Waits for a fork in
/// progress, but not for ever: a fork may itself be waiting for a lock that this thread has.
class gate_pass {
 public:
  gate_pass() noexcept {
    for (int tries = 0; tries < 400; ++tries) {
      unsigned now = the_gate.inside.load(std::memory_order_relaxed);
      if ((now & fork_gate::forking) == 0 &&
          the_gate.inside.compare_exchange_weak(now, now + 1, std::memory_order_acquire))
        return;
      if ((now & fork_gate::forking) != 0) platform::sys::sleep_for(50'000);
    }
    the_gate.inside.fetch_add(1, std::memory_order_acquire);
  }
  ~gate_pass() { the_gate.inside.fetch_sub(1, std::memory_order_release); }
  gate_pass(const gate_pass&) = delete;
  gate_pass& operator=(const gate_pass&) = delete;
};

inline void gate_before_fork() noexcept {
  the_gate.inside.fetch_or(fork_gate::forking, std::memory_order_acquire);
  for (int tries = 0; tries < 2'000; ++tries) {
    if ((the_gate.inside.load(std::memory_order_acquire) & ~fork_gate::forking) == 0) return;
    platform::sys::sleep_for(50'000);
  }
}

inline void gate_after_fork_in_parent() noexcept {
  the_gate.inside.fetch_and(~fork_gate::forking, std::memory_order_release);
}

/// The copy has no group: it closes the channels, and its objects do nothing.
inline void gate_after_fork_in_child() noexcept {
  the_gate.inside.store(0, std::memory_order_relaxed);
  if (the_gate.handing_over.load(std::memory_order_relaxed)) return;
  for (group_slot& slot : group_slots) {
    if (slot.state.load(std::memory_order_relaxed) == group_slot::free) continue;
    // Without an owner it is just being claimed: its zeros are no descriptors yet.
    if (slot.owner.load(std::memory_order_acquire) != 0)
      for (warden_link& link : slot.link) link.close();
    slot.links.store(0, std::memory_order_relaxed);
    slot.enders.store(0, std::memory_order_relaxed);
    slot.owner.store(0, std::memory_order_relaxed);
    slot.generation.fetch_add(1, std::memory_order_relaxed);
    slot.state.store(group_slot::free, std::memory_order_relaxed);
  }
}

/// Registers the fork handlers, once a process. 0, or a negated errno.
inline int register_fork_gate() noexcept {
  int before = 0;
  if (!the_gate.registered.compare_exchange_strong(before, 1)) return 0;
  const int result = ::pthread_atfork([] { gate_before_fork(); }, [] { gate_after_fork_in_parent(); },
                                      [] { gate_after_fork_in_child(); });
  if (result != 0) the_gate.registered.store(0);
  return -result;
}

}  // namespace instance_guard::detail
