// layer 3: a child of the warden, between clone and exec.
//
// It runs in the warden's memory, beside the warden, on a stack of its own: system calls only,
// nothing that writes errno, and it reads only its spawn_slot, which the warden leaves alone
// until the kernel has cleared its word (at the exec, or when the child has ended).
#pragma once

#include "../platform/platform.hpp"
#include "warden_credentials.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

inline constexpr size_t child_stack_size = 16u << 10;
inline constexpr size_t slot_text_size = wire::max_inline_text;
inline constexpr size_t slot_pointers = 512;

struct spawn_slot {
  // For the child to read.
  pid_t warden = 0;
  pid_t process_group = 0;      ///< to join; 0: it leads one
  char** candidates = nullptr;  ///< paths to try in turn, null at the end
  char** arguments = nullptr;
  char** environment = nullptr;
  const char* directory = nullptr;  ///< to change to, relative to directory_fd; or null
  int directory_fd = -1;
  int streams[3] = {-1, -1, -1};  ///< descriptors, or wire::stream
  int report = -1;                ///< where a failure is told
  bool outlives = false;
  int control_group = -1;  ///< in which it is born; -1: the warden's
  bool no_new_privileges = false;
  sys::signal_bits mask = 0;
  platform::process_attributes attributes = {};
  const platform::process_attributes* own_attributes = nullptr;
  pid_t asking = 0;  ///< process or thread whose attributes the child gets

  int verdict = 0;  ///< futex: may it go on? 0: not decided yet

  // Written by the child and by the kernel.
  start_word own_word = {};      ///< where there is no board
  start_word* word = &own_word;  ///< its state: not 0 until the exec, 0 then or at its end

  // The warden's.
  void* large = nullptr;  ///< mapping of text that did not fit
  size_t large_size = 0;
  char** more_pointers = nullptr;  ///< mapping of pointers that did not fit
  size_t more_pointers_size = 0;
  char* pointers[slot_pointers];
  alignas(16) unsigned char stack[child_stack_size];
  alignas(16) unsigned char message[sizeof(wire::spawn_request) + slot_text_size + 1];
};

enum verdict : int { undecided = 0, approved = 1, refused = 2 };

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void child_fail(spawn_slot& slot, long result) noexcept {
  wire::failed what;
  what.error = static_cast<int32_t>(-result);
  wire::send(slot.report, &what, sizeof what);
  sys::exit_group(127);
}

/// Tries each candidate as execvp(3) would: the first that can be run counts; "permission
/// denied" is remembered, but what comes later may still do. Why none can be: a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline long try_exec(char** candidates, char** arguments, char** environment) noexcept {
  long worst = -ENOENT;
  for (char** path = candidates; *path != nullptr; ++path) {
    const long result = sys::execve(*path, arguments, environment);
    if (result == -EACCES) worst = result;
    const bool go_on = result == -EACCES || result == -ENOENT || result == -ENOTDIR || result == -ENODEV ||
                       result == -ESTALE || result == -ETIMEDOUT || result == -ENAMETOOLONG;
    if (!go_on) return result;
    if (path == candidates && path[1] == nullptr) worst = result;  // a path, not a search
  }
  return worst;
}

/// The warden looks at the owner's rights while this child reads its limits; what comes before the
/// verdict gives nothing away. Ends the child if it is refused. It looks for a moment before it
/// sleeps: the verdict is near, and to be woken on an idle processor takes longer.
INSTANCE_GUARD_NO_SANITIZE inline void await_verdict(spawn_slot& slot) noexcept {
  const auto decided = [&]() noexcept { return __atomic_load_n(&slot.verdict, __ATOMIC_ACQUIRE); };
  constexpr int64_t moment = 80'000;  // ns
  for (const int64_t end = sys::monotonic_now() + moment; decided() == undecided;) {
    for (int i = 0; i < 32 && decided() == undecided; ++i) sys::relax();
    if (sys::monotonic_now() > end) break;
  }
  while (decided() == undecided) {
    // One that outlives its group gets no death signal, and holds copies of the warden's locks.
    if (sys::getppid() != slot.warden) sys::exit_group(127);
    sys::futex_wait(&slot.verdict, undecided, 200'000'000);
  }
  if (decided() != approved || sys::getppid() != slot.warden) sys::exit_group(127);
}

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void child_main(void* argument) noexcept {
  spawn_slot& slot = *static_cast<spawn_slot*>(argument);
  __atomic_store_n(&slot.word->processor, sys::current_processor(), __ATOMIC_RELAXED);
  long result = 0;
  // One that outlives the group outlives the warden as well.
  if (!slot.outlives) result = platform::die_with_parent(slot.warden);
  if (result == -ESRCH) sys::exit_group(127);  // it is dead: the owner finds that out by itself
  if (result < 0) child_fail(slot, result);
  result = sys::setpgid(0, slot.process_group);
  if (result < 0) child_fail(slot, result);
  platform::read_attributes(slot.asking, slot.attributes);
  // Before anything whose outcome could tell an owner that has lost rights what only they show.
  await_verdict(slot);
  // The warden's own 0, 1 and 2 are taken, so no source lies there and the order is free.
  for (int i = 0; i < 3; ++i) {
    int from = slot.streams[i];
    if (from == wire::join_out) from = slot.streams[1];
    const bool null = from == wire::to_null;
    if (null) from = sys::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (from < 0) child_fail(slot, from);
    result = sys::dup3(from, i, 0);
    if (result < 0) child_fail(slot, result);
  }
  if (slot.directory_fd >= 0) result = sys::fchdir(slot.directory_fd);
  if (result >= 0 && slot.directory != nullptr) result = sys::chdir(slot.directory);
  if (result < 0) child_fail(slot, result);
  platform::take_attributes(slot.attributes, *slot.own_attributes);
  if (slot.no_new_privileges) {
    result = platform::forbid_new_privileges();
    if (result < 0) child_fail(slot, result);
  }
  sys::set_signal_mask(slot.mask);
  child_fail(slot, try_exec(slot.candidates, slot.arguments, slot.environment));
}

}  // namespace instance_guard::detail
