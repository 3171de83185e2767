// layer 3: what the warden remembers.
//
// The warden is a copy of its owner that makes system calls only: no heap, no libc, no locks, no
// exceptions. All its memory is this struct (in one mapping, with its stack) and raw_arrays.
// Everything in detail/warden_*.hpp and detail/child_start.hpp runs in it and nowhere else, but for
// try_exec, which a child of the program itself uses too (direct_start.hpp).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../platform/platform.hpp"
#include "raw_array.hpp"
#include "start_board.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

namespace sys = platform::sys;

/// A child that the owner asked for, until it is reaped.
struct warden_child {
  pid_t pid = 0;
  int channel = -1;  ///< where its exit status goes; -1: nobody wants it
  uint64_t token = 0;
  bool outlives = false;
  bool shares_group = false;  ///< is in the owner's process group
};

/// A group whose warden this one started. It is a child like others, but is asked to end, not
/// signalled: it has its own to end first.
struct warden_nested {
  pid_t pid = 0;
  int lifeline = -1;  ///< its end-of-file tells the nested warden that this one is dead
  bool idle = true;   ///< as it said last
  bool told = false;  ///< to end
};

/// An exit status whose receiver had no room for it.
struct warden_unsent {
  int channel = -1;
  wire::ended what = {};
};

/// A child that has ended, and of which nobody knows who waits for it.
struct warden_unclaimed {
  pid_t pid = 0;
  wire::ended what = {};
};

/// Somebody in the owner who waits for an answer.
struct warden_waiter {
  int channel = -1;
  wire::kind what = wire::kind::ping;  ///< terminate, wait_idle or look_idle
};

/// A copy of one of the owner's locks.
struct warden_lock {
  int slot = -1;  ///< the owner's number for it
  int file = -1;
  int directory = -1;
  int socket = -1;
  uint64_t device = 0;
  uint64_t inode = 0;
  bool dropped = false;  ///< the owner let go: unlink and close once nothing is left
  char name[80] = {};
  char refused[80] = {};  ///< unlinked with it
};

/// A signal that was sent to the warden; see warden_told.hpp.
struct warden_heard {
  int64_t at = 0;         ///< monotonic; 0: none
  uint64_t clock = 0;     ///< the same, as process_stat::start_time counts
  pid_t sender = 0;       ///< 0: the kernel, or one of another pid namespace
  int64_t passed_at = 0;  ///< monotonic: the owner's was passed on, for the warden had not been sent it
};

/// One process of the host in a scan; see warden_scan.hpp.
struct scanned {
  pid_t pid = 0;
  pid_t parent = 0;
  uint64_t start_time = 0;
  char state = '?';
  uint8_t flags = 0;
  int16_t refused = 0;  ///< what the last signal to it was answered, negated errno
};

enum scan_flag : uint8_t {
  is_descendant = 1,
  is_kept = 2,       ///< outlives, INSTANCE_GUARD_KEEP, or below one
  is_looked_at = 4,  ///< its environment was read
  was_stopped = 8,   ///< stop_signal has been sent, or it is an answer to that
  was_killed = 16,   ///< SIGKILL has been sent
  is_nested_warden = 32,
  is_below_nested = 64,  ///< the nested warden ends it, in its own time
  is_owner = 128         ///< the program itself, where its warden is its parent
};

/// Memory of a child between clone and exec: its stack, and what it reads. See child_start.hpp.
struct spawn_slot;

/// See stray_round.hpp.
struct stray_memory;

enum class ending { none, stopping, killing };

inline constexpr int64_t touch_pause = int64_t{24} * 3600 * 1'000'000'000;  // ns

inline constexpr unsigned max_inherited = 64;

inline constexpr size_t warden_stack_size = 96u << 10;

struct warden_state {
  // Set by the owner, before the warden exists.
  int channel = -1;
  int owner_process = -1;  ///< pidfd of the owner, or -1
  int adoptions = -1;      ///< what children say that the owner has started, or -1
  int lifeline = -1;       ///< to the warden that started this one, or -1
  int hello = -1;          ///< where a nested one says hello; else on the channel
  pid_t owner = 0;
  uint64_t owner_start = 0;  ///< its start time
  int64_t grace = 0;         ///< nanoseconds
  int stop_signal = SIGTERM;
  bool keep_session = false;     ///< of the owner, and its terminal
  int session_leader = -1;       ///< pidfd of that, with keep_session, if it is another
  unsigned inherited_count = 0;  ///< descriptors for the children, besides 0, 1 and 2
  int inherited[max_inherited] = {};

  // Found out at the start.
  pid_t self = 0;
  int signals = -1;                       ///< readable on SIGCHLD
  int owner_directory = -1;               ///< /proc/<owner>
  int owner_status = -1;                  ///< /proc/<owner>/status
  uint32_t mechanism = 0;                 ///< containment
  bool together_ended = false;            ///< by the kernel: nobody can be born in it any more
  bool together_spares = false;           ///< somebody in it is to be kept: in this end the kernel is not asked
  platform::control_group together = {};  ///< of all that it starts, if the kernel can end them at once
  platform::process_rights rights = {};
  platform::process_attributes attributes = {};

  // Where the owner is its child (reach::everything).
  pid_t program = 0;         ///< the owner, until it is reaped; 0: it is not a child
  bool has_program = false;  ///< leaves as the program did
  int program_code = 0;      ///< siginfo_t::si_code, si_status of its end
  int program_status = 0;

  warden_heard heard[65] = {};  ///< the last of each signal, with keep_session
  uint64_t told_until = 0;      ///< who started before has had stop_signal from a supervisor; 0: nobody

  // The owner.
  bool owner_gone = false;    ///< dead, or replaced by another program
  uint64_t replaced = 0;      ///< when it was replaced, as process_stat::start_time counts
  bool former_ended = false;  ///< since then: who is below the warden now is the other program's
  bool goodbye = false;       ///< it ended in order
  bool said_empty = false;
  bool owner_closed = false;  ///< its copies of the locks are closed

  // Its children.
  uint64_t next_token = 1;
  raw_array<warden_child> children;
  raw_array<warden_nested> nested;
  raw_array<warden_unsent> unsent;
  raw_array<warden_unclaimed> unclaimed;  ///< until take_adoptions
  raw_array<warden_waiter> waiters;
  start_word* board = nullptr;         ///< where the owner reads that children are past their exec, or null
  bool word_taken[board_words] = {};   ///< by a slot
  uint32_t last_word = 0;              ///< what was last written there
  raw_array<spawn_slot*> starting;     ///< whose exec has not returned yet
  spawn_slot* spare = nullptr;         ///< ready for the next spawn
  spawn_slot* second_spare = nullptr;  ///< for the one after it, while the first child is starting
  bool anybody = false;                ///< the kernel says there are children
  bool changed = true;                 ///< since emptiness was last looked at
  bool empty = true;                   ///< as found then
  bool empty_is_certain = true;        ///< ECHILD, not a scan

  bool told_empty = true;    ///< to the warden above
  int64_t dismissed_at = 0;  ///< when the nested ones were told to go

  // Ending them.
  bool end_began = false;  ///< for the owner is gone
  ending phase = ending::none;
  bool reaped = false;       ///< somebody, since the last round
  int64_t phase_began = 0;   ///< monotonic
  uint64_t began_clock = 0;  ///< the same, as process_stat::start_time counts
  int64_t phase_ends = 0;    ///< monotonic: stopping turns into killing
  int64_t kill_began = 0;
  int64_t next_round = 0;
  int64_t round_pause = 0;
  bool strays_done = false;
  bool hurries = false;        ///< with more of the processors than it was given
  raw_array<scanned> now;      ///< ascending by pid
  bool scan_complete = false;  ///< it met the warden itself
  bool scan_cut = false;       ///< there was no memory for all
  raw_array<scanned> before;
  raw_array<pid_t> to_scan;  ///< a look at its own descendants: who is still to be looked at

  // What it holds for the owner.
  raw_array<warden_lock> locks;
  int64_t touch_locks_at = 0;
  bool marked = false;
  stray_target mark = {};
  stray_memory* strays = nullptr;

  raw_array<pollfd> poll_set;
};

}  // namespace instance_guard::detail
