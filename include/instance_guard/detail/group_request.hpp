// layer 3: the owner asks its warden, and never waits for one that can't answer.
//
// Each request has a pair of sockets of its own for the answer, so any number of threads may ask
// at once. Errors are negated errnos; -EPIPE means that the warden is dead or stopped.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <utility>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "deadline.hpp"
#include "group_gate.hpp"
#include "group_slot.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// The same descriptor, or a copy in its place that is not 0, 1 or 2: a program may run without
/// those, and neither it nor its children must find something else there. Closed on exec.
/// Empty: there is none left.
inline file_descriptor above_streams(int number) noexcept {
  if (number < 0 || number > 2) return file_descriptor(number);
  const int moved = platform::sys::fcntl(number, F_DUPFD_CLOEXEC, 3);
  platform::sys::close(number);
  return file_descriptor(moved);
}

/// A pair of sockets for messages.
inline int make_channel(file_descriptor (&ends)[2]) noexcept {
  int numbers[2] = {-1, -1};
  const int result = platform::sys::socketpair_seqpacket(numbers);
  if (result < 0) return result;
  for (int i = 0; i < 2; ++i) ends[i] = above_streams(numbers[i]);
  return ends[0] && ends[1] ? 0 : -EMFILE;
}

/// A pipe.
inline int make_pipe(file_descriptor& read_end, file_descriptor& write_end) noexcept {
  int numbers[2] = {-1, -1};
  const int result = platform::sys::pipe2(numbers, O_CLOEXEC);
  if (result < 0) return result;
  read_end = above_streams(numbers[0]);
  write_end = above_streams(numbers[1]);
  return read_end && write_end ? 0 : -EMFILE;
}

/// The calling thread, if it is not the main one: requests say for whom they ask.
inline pid_t asking_thread() noexcept {
  const pid_t thread = platform::sys::gettid();
  return thread == platform::sys::getpid() ? 0 : thread;
}

/// Sends a request with the end for its answer and further descriptors; `own` becomes the end
/// on which the answer comes. With `pipe` the write end of a pipe is the last descriptor, and `pipe`
/// becomes the other end. 0, or a negated errno.
inline int send_request(const warden_link& link, const void* head, std::size_t head_size, const void* text,
                        std::size_t text_size, const int* descriptors, unsigned count, file_descriptor& own,
                        file_descriptor* pipe = nullptr) noexcept {
  const gate_pass pass;
  file_descriptor ends[2];
  int result = make_channel(ends);
  file_descriptor other;
  if (result == 0 && pipe != nullptr) result = make_pipe(*pipe, other);
  if (result < 0) return result;
  int all[wire::max_descriptors] = {ends[1].get()};
  for (unsigned i = 0; i < count; ++i) all[i + 1] = descriptors[i];
  if (other) all[++count] = other.get();
  for (int tries = 0;; ++tries) {
    const int channel = link.channel.load(std::memory_order_relaxed);
    if (channel < 0) return -EPIPE;
    const long sent = wire::send(channel, head, head_size, text, text_size, all, count + 1);
    if (sent >= 0) break;
    if (sent == -ECONNRESET || sent == -ENOTCONN || sent == -ECONNREFUSED) return -EPIPE;
    // A queue that is full empties soon, or the warden is stopped. Descriptors in flight are
    // limited for each user: see unix(7), ETOOMANYREFS.
    if (sent != -EAGAIN && sent != -ETOOMANYREFS) return static_cast<int>(sent);
    if (tries % 100 == 99 && !is_healthy(link)) return -EPIPE;
    if (tries >= 20'000) return static_cast<int>(sent);
    pollfd entry = {channel, POLLOUT, 0};
    if (sent == -EAGAIN) platform::sys::ppoll(&entry, 1, 1'000'000, nullptr);
    platform::sys::sleep_for(100'000);
  }
  own = std::move(ends[0]);
  return 0;
}

/// The other end is closed: the warden is dead, or on its way there; or it lives, but could not
/// open that end, as it has too many descriptors. -EPIPE or -EMFILE.
inline int why_no_answer(const warden_link& link) noexcept {
  for (int i = 0; i < 50; ++i) {
    if (!is_healthy(link)) return -EPIPE;
    platform::sys::sleep_for(1'000'000);
  }
  return -EMFILE;
}

/// Waits for the next message on an answer's end. Its size, -ETIMEDOUT, or -EPIPE. With `peek`
/// it stays there. A descriptor that comes with it becomes `brought`.
inline long await_answer(const warden_link& link, int own, void* answer, std::size_t size, const deadline& end,
                         bool peek = false, file_descriptor* brought = nullptr) noexcept {
  for (;;) {
    std::int64_t left = end.left();
    if (left < 0 || left > 250'000'000) left = 250'000'000;
    pollfd entry = {own, POLLIN, 0};
    const int ready = platform::sys::ppoll(&entry, 1, left, nullptr);
    if (ready > 0) {
      wire::received got;
      wire::receive(own, answer, size, got, peek ? MSG_PEEK : 0);
      for (unsigned i = 0; i < got.count; ++i) {
        file_descriptor each(got.descriptors[i]);
        if (brought != nullptr) *brought = std::move(each);
      }
      if (got.size > 0) return got.size;
      if (got.size != -EAGAIN) return peek ? -EPIPE : why_no_answer(link);
    } else if (ready == 0) {
      if (end.passed()) return -ETIMEDOUT;
      if (!is_healthy(link)) {
        // It may have answered before it died.
        wire::received got;
        wire::receive(own, answer, size, got, peek ? MSG_PEEK : 0);
        return got.size > 0 ? got.size : -EPIPE;
      }
    }
  }
}

/// A request whose answer is a plain one.
template <class Request>
inline int ask(const warden_link& link, const Request& request, const int* descriptors = nullptr,
               unsigned count = 0) noexcept {
  file_descriptor own;
  const int result = send_request(link, &request, sizeof request, nullptr, 0, descriptors, count, own);
  if (result < 0) return result;
  wire::answer answer;
  const long size = await_answer(link, own.get(), &answer, sizeof answer, deadline(no_limit));
  if (size < 0) return static_cast<int>(size);
  return answer.credentials_changed ? -EKEYREJECTED : -answer.error;
}

/// Tells a warden what marks the owner's strays. 0, or a negated errno.
inline int tell_mark(const warden_link& link, const group_slot& slot) noexcept {
  wire::mark_request request;
  std::memcpy(&request.target, slot.mark, sizeof slot.mark);
  return ask(link, request);
}

/// The negated errno as an error code; what the wire uses for itself becomes an errc.
inline std::error_code group_error(int result) noexcept {
  if (result == -EPIPE) return errc::warden_lost;
  if (result == -EKEYREJECTED) return errc::credentials_changed;
  if (result == -ETIMEDOUT) return errc::timed_out;
  return {-result, std::system_category()};
}

}  // namespace instance_guard::detail
