// layer 3: how a warden comes to be: a copy of its owner that lets go of everything.
//
// start_warden runs in the owner (or in a warden, for a nested one), the rest in the new process.
#pragma once

#include <new>

#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "stray_mark.hpp"
#include "warden_credentials.hpp"
#include "warden_spawn.hpp"
#include "warden_state.hpp"
#include "warden_together.hpp"

namespace instance_guard::detail {

inline constexpr char warden_name[] = "instance-warden";  // 15 bytes are all that comm(5) shows

/// One mapping: a page that nobody may touch, the stack, the state.
inline constexpr size_t guard_page = 64u << 10;  // as large as pages get
inline constexpr size_t warden_mapping = guard_page + warden_stack_size + sizeof(warden_state);

INSTANCE_GUARD_NO_SANITIZE inline warden_state* new_warden_state() noexcept {
  void* memory = sys::mmap(warden_mapping, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sys::is_error(memory)) return nullptr;
  sys::mprotect(memory, guard_page, PROT_NONE);
  auto* state = reinterpret_cast<warden_state*>(static_cast<char*>(memory) + guard_page + warden_stack_size);
  return new (state) warden_state{};
}

INSTANCE_GUARD_NO_SANITIZE inline void delete_warden_state(warden_state* state) noexcept {
  sys::munmap(reinterpret_cast<char*>(state) - warden_stack_size - guard_page, warden_mapping);
}

/// Occupies 0, 1 and 2, so that no descriptor of a request lands there.
INSTANCE_GUARD_NO_SANITIZE inline int occupy_standard_streams() noexcept {
  int null = sys::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) {  // no /dev: the read end of a pipe that nobody writes to
    int ends[2] = {-1, -1};
    const int result = sys::pipe2(ends, O_CLOEXEC);
    if (result < 0) return result;
    null = ends[0];
    sys::close(ends[1]);
  }
  for (int i = 0; i < 3; ++i)
    if (i != null && sys::dup3(null, i, O_CLOEXEC) < 0) return -EMFILE;
  if (null > 2) sys::close(null);
  return 0;
}

/// Keeps what the warden needs of the owner's descriptors, and closes the rest: the owner's end
/// of the channel above all, or its death would never be seen.
INSTANCE_GUARD_NO_SANITIZE inline void keep_own_descriptors(const warden_state& warden) noexcept {
  int kept[6 + max_inherited] = {warden.channel, warden.owner_process,  warden.lifeline,
                                 warden.hello,   warden.session_leader, warden.adoptions};
  unsigned count = 0;
  for (int i = 0; i < 6; ++i)
    if (kept[i] >= 0) kept[count++] = kept[i];
  for (unsigned i = 0; i < warden.inherited_count; ++i) kept[count++] = warden.inherited[i];
  for (unsigned i = 1; i < count; ++i)
    for (unsigned j = i; j > 0 && kept[j - 1] > kept[j]; --j) {
      const int other = kept[j];
      kept[j] = kept[j - 1];
      kept[j - 1] = other;
    }
  platform::close_all_but(3, kept, count);
}

/// What it may do and how it runs: what a child is compared with. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int remember_rights(warden_state& warden) noexcept {
  if constexpr (!platform::can_read_rights) return 0;
  if (platform::process_list_is_ours() != 0) return -ENOSYS;  // none, or its numbers mean others
  const int owner = open_owner(warden, warden.owner);
  if (owner < 0) return owner == -ENOENT ? -ENOSYS : owner;
  const int directory = sys::open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  const int status = sys::openat(directory, "status", O_RDONLY | O_CLOEXEC);
  int result = status;
  if (status >= 0) {
    result = platform::read_status(status, warden.rights, warden.attributes.file_mask, warden.attributes.ignored);
    if (result >= 0) result = platform::read_places(directory, warden.rights, warden.rights);
    sys::close(status);
  }
  sys::close(directory);
  return result;
}

/// Turns the copy of the owner into a warden. `reader` becomes the owner's descriptor of the board, if
/// there is one. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int settle(warden_state& warden, int& reader) noexcept {
  warden.self = sys::getpid();
  sys::set_signal_mask(sys::all_signals);
  for (int number = 1; number <= 64; ++number) platform::set_disposition(number, false);
  keep_own_descriptors(warden);
  int result = occupy_standard_streams();
  if (result < 0) return result;
  // The parent of a program is what its terminal and its starter know: it stays where it is. One
  // that keeps the session leaves the process group, so that whoever kills that leaves it alone.
  if (warden.keep_session) sys::setpgid(0, 0);
  else if (!warden.has_program) sys::setsid();
  sys::chdir("/");
  forget_marks_in_copy();
  // A plugin may have a copy of this library to itself: of its marks nothing is known here.
  platform::mark_page unmistakable;
  platform::make_mark_page(warden_page, unmistakable);
  platform::rename_self(warden_name);
  result = platform::adopt_orphans();
  if (result < 0 && platform::can_adopt_orphans) return -ENOSYS;
  warden.mechanism = static_cast<uint32_t>(result < 0 ? containment::process_groups : containment::subreaper);
  const bool hears_all = warden.has_program || warden.keep_session;
  warden.signals = platform::signal_descriptor(hears_all ? sys::all_signals : sys::signal_bit(SIGCHLD));
  if (warden.signals < 0) return warden.signals;
  result = remember_rights(warden);
  if (result < 0) return result;
  // Each child that lives costs a descriptor; the owner's soft limit is for the owner.
  rlimit limit = {};
  if (sys::prlimit(0, RLIMIT_NOFILE, nullptr, &limit) == 0 && limit.rlim_cur != limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    sys::prlimit(0, RLIMIT_NOFILE, &limit, nullptr);
  }
  warden.touch_locks_at = sys::monotonic_now() + touch_pause;
  warden.board = new_board(reader);
  return spare_slot(warden) != nullptr ? 0 : -ENOMEM;
}

/// What the first child needs, and nobody waits for: the owner goes on meanwhile. But for a program that is the
/// warden's child: that must not start anybody before it is in its group.
INSTANCE_GUARD_NO_SANITIZE inline void prepare_for_children(warden_state& warden) noexcept {
  platform::ask_for_short_slices();
  platform::read_attributes(0, warden.attributes);
  make_together(warden);
}

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void warden_loop(warden_state& warden) noexcept;
[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void wait_for_program(warden_state& warden) noexcept;

[[noreturn]] INSTANCE_GUARD_NO_SANITIZE inline void warden_main(void* argument) noexcept {
  warden_state& warden = *static_cast<warden_state*>(argument);
  int reader = -1;
  const int result = settle(warden, reader);
  if (result == 0 && warden.has_program) prepare_for_children(warden);
  wire::answer hello;
  hello.head.what = wire::kind::hello;
  hello.error = -result;
  hello.pid = warden.self;
  hello.token = warden.mechanism;
  platform::process_stat facts;
  if (platform::read_process_stat(warden.self, facts) == 0) hello.start_time = facts.start_time;
  const bool own = warden.hello >= 0;
  wire::send(own ? warden.hello : warden.channel, &hello, sizeof hello, nullptr, 0, &reader, reader >= 0 ? 1 : 0);
  close_fd(reader);
  close_fd(warden.hello);
  if (result < 0 && warden.has_program) wait_for_program(warden);
  if (result < 0) sys::exit_group(1);
  if (!warden.has_program) prepare_for_children(warden);
  warden_loop(warden);
}

/// Starts a warden with this state. Its pid, or a negated errno. All signals of the caller
/// should be blocked: a handler of the program must not run in the copy.
INSTANCE_GUARD_NO_SANITIZE inline long start_warden(warden_state& state, int exit_signal) noexcept {
  platform::clone_request how;
  how.exit_signal = exit_signal;
  how.stack = reinterpret_cast<char*>(&state) - warden_stack_size;
  how.stack_size = warden_stack_size;
  const long child = platform::clone_call(how, warden_main, &state);
  if (child != -ENOSYS && child != -EPERM) return child;
  const long copy = platform::fork_copy(exit_signal);
  if (copy == 0) warden_main(&state);
  return copy;
}

}  // namespace instance_guard::detail
