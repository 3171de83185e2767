// layer 3: a child of the program itself, between clone and exec, where a warden is above it.
//
// It runs in the program's memory, beside all its threads, on a stack of its own: system calls only,
// nothing that writes errno, and it reads and writes only its direct_start, which the caller of spawn
// leaves alone until the kernel has cleared `word`. The parent is the warden, as for every child.
#pragma once

#include "../platform/platform.hpp"
#include "child_start.hpp"
#include "start_board.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

struct direct_start {
  // For the child to read.
  pid_t warden = 0;
  int channel = -1;             ///< on which it tells the warden of itself
  int answers = -1;             ///< where the exit status shall come
  uint64_t token = 0;           ///< by which the owner will name it
  char** candidates = nullptr;  ///< as in spawn_slot
  char** arguments = nullptr;
  char** environment = nullptr;
  const char* directory = nullptr;  ///< or null
  int streams[3] = {-1, -1, -1};    ///< descriptors, or wire::stream
  bool closes_others = true;        ///< descriptors above 2
  bool no_new_privileges = false;
  platform::sys::signal_bits mask = 0;

  // Written by the child.
  int error = 0;            ///< negated errno
  bool registered = false;  ///< the warden will hear of it

  start_word word = {};  ///< its state: not 0 until the exec, 0 then or at its end
  alignas(16) unsigned char stack[child_stack_size];
};

/// Puts the streams in place. Their sources may be 0, 1 and 2 in any order, so those move away first.
/// 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int place_streams(direct_start& start) noexcept {
  using namespace platform;
  if (start.streams[2] == wire::join_out) start.streams[2] = start.streams[1];
  for (int i = 0; i < 3; ++i) {
    int& from = start.streams[i];
    if (from == wire::to_null) from = sys::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (from >= 0 && from < 3 && from != i) from = sys::fcntl(from, F_DUPFD_CLOEXEC, 3);
    if (from < 0) return from;
  }
  for (int i = 0; i < 3; ++i) {
    const int from = start.streams[i];
    const int result = from == i ? sys::fcntl(i, F_SETFD, 0) : sys::dup3(from, i, 0);
    if (result < 0) return result;
  }
  return 0;
}

INSTANCE_GUARD_NO_SANITIZE inline int prepare_direct(direct_start& start) noexcept {
  using namespace platform;
  int result = die_with_parent(start.warden);
  if (result == 0) result = sys::setpgid(0, 0);
  if (result < 0) return result;
  // While it lives, and before anybody can wait for it: the warden finds this when it reaps it.
  wire::adopt_request request;
  request.token = start.token;
  result = static_cast<int>(wire::send(start.channel, &request, sizeof request, nullptr, 0, &start.answers, 1));
  if (result < 0) return result;
  start.registered = true;
  result = place_streams(start);
  if (result == 0 && start.closes_others) result = close_all_on_exec(3);
  if (result == 0 && start.directory != nullptr) result = sys::chdir(start.directory);
  if (result == 0 && start.no_new_privileges) result = forbid_new_privileges();
  return result;
}

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void direct_main(void* argument) noexcept {
  direct_start& start = *static_cast<direct_start*>(argument);
  __atomic_store_n(&start.word.processor, platform::sys::current_processor(), __ATOMIC_RELAXED);
  start.error = prepare_direct(start);
  if (start.error == 0) {
    platform::sys::set_signal_mask(start.mask);
    start.error = static_cast<int>(try_exec(start.candidates, start.arguments, start.environment));
  }
  platform::sys::exit_group(127);
}

}  // namespace instance_guard::detail
