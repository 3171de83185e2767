// layer 3: the program starts a child by itself, where a warden is above it (reach::everything).
//
// The child's parent is the warden, which ends it like every other descendant; it is about as fast as
// posix_spawn(3), as nobody needs to be asked. As there, the calling thread is deaf to all but SIGKILL
// while an exec hangs. Runs in the program; allocates.
#pragma once

#include <cerrno>
#include <cstdint>
#include <utility>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "group_await.hpp"
#include "group_gate.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "group_spawn.hpp"
#include "owned.hpp"
#include "start_time.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// Whether the program may do so: the group's first warden is its parent.
inline bool can_start_directly(const group_slot& slot) noexcept {
  return slot.link[0].adoptions.load(std::memory_order_relaxed) >= 0 && platform::children_may_share_memory &&
         platform::sys::getppid() == slot.link[0].pid.load(std::memory_order_relaxed);
}

/// Starts the child and waits until it has executed its program. `answer` becomes what a warden would
/// have answered, `own` the end on which its exit status comes. 0, or the negated errno of the exec;
/// -ENOSYS: it can't be done here, so the warden shall.
inline int start_directly(group_slot& slot, spawn_order& order, file_descriptor& own, wire::answer& answer) {
  const owned<direct_start> start(new direct_start);  // its stack stays untouched
  owned_array<char*> pointers;
  order.fill(*start, pointers);
  start->closes_others = !slot.inherit_descriptors.load(std::memory_order_relaxed);
  start->warden = slot.link[0].pid.load(std::memory_order_relaxed);
  start->token = wire::own_token | (1 + slot.last_token.fetch_add(1, std::memory_order_relaxed));
  platform::clone_request how;
  how.flags = platform::sibling_flags;
  how.tid = &start->word.state;
  how.stack = start->stack;
  how.stack_size = sizeof start->stack;
  start->word.state = 1;
  file_descriptor ends[2];
  std::uint64_t began = 0;
  long child = 0;
  {
    const gate_pass pass;
    if (make_channel(ends) < 0) return -ENOSYS;
    start->channel = slot.link[0].adoptions.load(std::memory_order_relaxed);
    start->answers = ends[1].get();
    // No handler of the program may run in the child: it has none, and gets no signal before its own mask.
    platform::sys::signal_bits before = 0;
    platform::sys::set_signal_mask(platform::sys::all_signals, &before);
    began = platform::process_clock_now();
    child = platform::clone_call(how, direct_main, start.get());
    platform::sys::set_signal_mask(before);
  }
  if (child < 0) return -ENOSYS;
  answer.pid = static_cast<pid_t>(child);
  answer.start_time = start_time_of(answer.pid, began);
  answer.token = start->token;
  while (!await_word(start->word, 1)) {
  }
  ends[1].reset();
  if (!start->registered) return -ENOSYS;  // the warden's queue is full, or it was killed by somebody
  if (start->error != 0) return start->error;
  own = std::move(ends[0]);
  return 0;
}

}  // namespace instance_guard::detail
