// layer 4: reach::everything: the caller becomes the warden, the program goes on in a child.
//
// Everything that the child will ever start is then below a process that adopts what is orphaned,
// however it was started. The price: the program has another pid than the one that was started.
#pragma once

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "../process_group.hpp"

namespace instance_guard::detail {

/// Tells a service manager which process is the program now: sd_notify(3). Only the process that
/// it started may say so.
inline void notify_main_pid(pid_t program) noexcept {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address = {};
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  const std::size_t size = std::strlen(path);
  if (size >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, size);
  if (path[0] == '@') address.sun_path[0] = '\0';
  char text[40] = "MAINPID=";
  char digits[16];
  int count = 0;
  for (unsigned value = static_cast<unsigned>(program); value != 0; value /= 10U)
    digits[count++] = static_cast<char>('0' + value % 10U);
  char* at = text + 8;
  while (count > 0) *at++ = digits[--count];
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return;
  ::sendto(socket, text, static_cast<std::size_t>(at - text), MSG_NOSIGNAL | MSG_DONTWAIT,
           reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size));
  ::close(socket);
}

/// Variables that name the process they are meant for: sd_listen_fds(3), sd_watchdog_enabled(3).
inline void rewrite_pid_variables(pid_t before, pid_t now) {
  for (const char* name : {"LISTEN_PID", "WATCHDOG_PID"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && same(std::to_string(before), value)) ::setenv(name, std::to_string(now).c_str(), 1);
  }
}

/// Who the program is, once it has been forked: the warden does not return.
[[noreturn]] inline void become_warden(warden_state& state, pid_t program) noexcept {
  notify_main_pid(program);
  state.owner = state.program = program;
  state.owner_process = above_streams(platform::sys::pidfd_open(program)).release();
  platform::process_stat facts;
  // It can't be gone: this process is its parent, and has not waited for it.
  if (platform::read_process_stat(program, facts) == 0) state.owner_start = facts.start_time;
  warden_main(&state);
}

/// Returns in a child of the caller, which has become the warden of everything that the child will
/// ever start. To be called before the process has threads, groups or locks, with signal handlers
/// not yet installed. Errors: threads_running; credentials_changed where a child would be in another pid namespace;
/// those of starting a group.
inline process_group become_child_of_warden(const group_options& options, std::error_code& ec) noexcept {
  ec.clear();
  process_group result(nullptr);
  if (!is_signal(options.stop_signal)) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return result;
  }
  if (!platform::has_one_thread()) {
    ec = errc::threads_running;
    return result;
  }
  if (!platform::forks_into_own_pid_namespace()) {
    ec = errc::credentials_changed;
    return result;
  }
  without_throwing(ec, [&] { result.start_above(options, ec); });
  return result;
}

}  // namespace instance_guard::detail

namespace instance_guard {

inline void process_group::start_above(const group_options& options, std::error_code& ec) {
  const int index = detail::claim_group_slot();
  if (index < 0) {
    ec = std::make_error_code(std::errc::resource_unavailable_try_again);
    return;
  }
  detail::group_slot& mine = detail::group_slots[index];
  file_descriptor ends[2];
  file_descriptor adoptions[2];
  detail::warden_state* state = detail::new_warden_state();
  int error = state == nullptr ? -ENOMEM : detail::register_fork_gate();
  if (error == 0) error = detail::make_channel(ends);
  if (error == 0) error = platform::attest_senders(ends[1].get());
  if (error == 0) error = detail::make_channel(adoptions);
  if (error == 0) error = platform::attest_senders(adoptions[1].get());
  // What may fail is done before there are two processes.
  if (error == 0 && platform::adopt_orphans() < 0) error = -ENOSYS;
  const pid_t before = platform::sys::getpid();
  platform::sys::signal_bits mask = 0;
  platform::sys::set_signal_mask(platform::sys::all_signals, &mask);
  pid_t program = -1;
  if (error == 0) {
    state->channel = ends[1].get();
    state->adoptions = adoptions[1].get();
    state->has_program = true;
    state->grace = detail::deadline::nanoseconds(options.grace);
    state->stop_signal = options.stop_signal;
    detail::the_gate.handing_over = true;
    program = ::fork();
    if (program < 0) error = -errno;
    if (program > 0) detail::become_warden(*state, program);
    detail::the_gate.handing_over = false;
  }
  if (error == 0) {
    // Who kills the process that it started means the program.
    error = platform::die_with_parent(before);
    mine.owner.store(platform::sys::getpid(), std::memory_order_relaxed);
    mine.grace.store(state->grace, std::memory_order_relaxed);
    mine.stop_signal.store(options.stop_signal, std::memory_order_relaxed);
    mine.no_new_privileges.store(options.no_new_privileges, std::memory_order_relaxed);
    detail::rewrite_pid_variables(before, platform::sys::getpid());
    ends[1].reset();
    const int hello_end = ends[0].get();
    if (error == 0) error = detail::add_link(mine, std::move(ends[0]), hello_end, before, false);
  } else {
    platform::keep_no_orphans();
  }
  platform::sys::set_signal_mask(mask);
  if (state != nullptr) detail::delete_warden_state(state);
  if (error < 0) {
    detail::free_group_slot(mine);
    ec = detail::group_error(error);
    return;
  }
  slot_ = index;
  generation_ = mine.generation.load(std::memory_order_relaxed);
  options_ = options;
  detail::publish_link(mine);
  mine.link[0].adoptions.store(adoptions[0].release(), std::memory_order_relaxed);
  mine.state.store(detail::group_slot::live, std::memory_order_release);
}

}  // namespace instance_guard
