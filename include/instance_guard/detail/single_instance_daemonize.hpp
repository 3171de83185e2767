// layer 5: into the background, with everything; part of single_instance.hpp.
//
//   first process            the one between       the successor
//   fork                ->   setsid, fork      ->  says who it is
//   wardens: "serve it" <------------------------
//   "all yours"         ------------------------>  takes over wardens, locks, records
//   forgets, ends       <------------------------  "done"
//
// Each step waits for the one before it. Who finds the other end closed gives up: the successor
// ends, the first process goes on as the owner.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../single_instance.hpp"
#include "group_hand_over.hpp"
#include "lock_hand_over.hpp"

namespace instance_guard {
namespace detail {

/// The other side's word, or -1: it has gone.
inline int hear_word(int descriptor) noexcept {
  int word = 0;
  char* at = reinterpret_cast<char*>(&word);
  std::size_t missing = sizeof word;
  while (missing > 0) {
    const long got = platform::sys::read(descriptor, at, missing);
    if (got == -EINTR) continue;
    if (got <= 0) return -1;
    at += got;
    missing -= static_cast<std::size_t>(got);
  }
  return word;
}

/// Four bytes into an empty pipe: whole or not at all. False: nobody will hear it.
inline bool tell_word(int descriptor, int word) noexcept {
  long result = 0;
  do result = platform::sys::write(descriptor, &word, sizeof word);
  while (result == -EINTR);
  return result == static_cast<long>(sizeof word);
}

/// 0, 1 and 2 to /dev/null, as far as it can be opened.
inline void leave_terminal() noexcept {
  const int nowhere = platform::sys::open("/dev/null", O_RDWR);
  if (nowhere < 0) return;
  for (int stream = 0; stream < 3; ++stream)
    if (nowhere != stream) platform::sys::dup3(nowhere, stream, 0);
  if (nowhere > 2) platform::sys::close(nowhere);
}

/// Two pipes between a process and its successor. SIGPIPE can't occur: all are blocked meanwhile.
struct succession {
  file_descriptor up[2];
  file_descriptor down[2];

  int open() noexcept {
    for (file_descriptor* each : {up, down}) {
      int ends[2];
      const int result = platform::sys::pipe2(ends, O_CLOEXEC);
      if (result < 0) return result;
      each[0].reset(ends[0]);
      each[1].reset(ends[1]);
    }
    return 0;
  }
};

}  // namespace detail

inline void single_instance::take_over() noexcept {
  owner_ = platform::sys::getpid();
  signals_.take_over();
  detail::take_over_stray_mark(mark_);
  // The wardens look for the strays of this process now.
  std::error_code ec;
  group_.mark(mark_, detail::target_of(mark_), ends_ == reach::strays, ec);
}

inline void single_instance::daemonize(std::error_code& ec) noexcept {
  namespace sys = platform::sys;
  ec.clear();
  if (!*this) {
    ec = errc::lock_lost;
    return;
  }
  if (!platform::has_one_thread()) {
    ec = errc::threads_running;
    return;
  }
  if (ends_ == reach::everything) {
    ec = std::make_error_code(std::errc::function_not_supported);
    return;
  }
  detail::succession word;
  if (const int result = word.open(); result < 0) {
    ec = {-result, std::system_category()};
    return;
  }
  // No handler may meet a guard that is half handed over; a signal that comes now comes afterwards.
  sys::signal_bits mask = 0;
  sys::set_signal_mask(sys::all_signals, &mask);
  detail::lock_hand_over_begin();
  detail::group_hand_over_begin();
  const pid_t between = ::fork();
  if (between == 0) {
    word.up[0].reset();
    word.down[1].reset();
    sys::setsid();
    const pid_t successor = ::fork();
    if (successor != 0) ::_exit(successor > 0 ? 0 : 1);
    if (!detail::tell_word(word.up[1].get(), sys::getpid()) || detail::hear_word(word.down[0].get()) != 0) ::_exit(1);
    detail::group_take_over();
    std::error_code record;
    detail::lock_take_over(record);
    take_over();
    sys::chdir("/");
    detail::leave_terminal();
    detail::tell_word(word.up[1].get(), 0);
    sys::set_signal_mask(mask);
    return;
  }
  const int fork_error = errno;
  word.up[1].reset();
  word.down[0].reset();
  int successor = -1;
  if (between > 0) {
    successor = detail::hear_word(word.up[0].get());
    int status = 0;
    while (::waitpid(between, &status, 0) < 0 && errno == EINTR) {
    }
  }
  const int result = detail::group_hand_over_to(successor > 0 ? successor : 0);
  if (successor > 0 && result == 0 && detail::tell_word(word.down[1].get(), 0)) {
    detail::hear_word(word.up[0].get());  // "done", or it has died: then its wardens see to it
    detail::lock_hand_over_end(true);
    ::_exit(0);
  }
  detail::lock_hand_over_end(false);
  sys::set_signal_mask(mask);
  ec = {between < 0 ? fork_error : result < 0 ? -result : EAGAIN, std::system_category()};
}

}  // namespace instance_guard
