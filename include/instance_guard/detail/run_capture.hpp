// layer 3: the pump behind process_group::run: feeds a command, keeps what it says.
//
// It knows nothing of groups: it is given the owner's ends of the pipes and a descriptor that
// becomes readable when the command has ended. Ending the leftovers is its caller's business,
// and comes between pump() and drain(): a grandchild that holds a pipe open can't keep either
// of them waiting.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "deadline.hpp"

namespace instance_guard::detail {

/// write(2) into a pipe that may have lost its reader: EPIPE without SIGPIPE.
///
/// The signal of a write goes to the writing thread, so blocking it there and taking it out
/// again leaves the dispositions and the other threads of the program alone. One that was
/// pending before belongs to the program and stays.
inline ssize_t write_without_sigpipe(int descriptor, const void* data, std::size_t size) noexcept {
  const auto is_pending = [] {
    sigset_t pending;
    sigemptyset(&pending);
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
  };
  sigset_t pipe_signal, before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  const bool was_pending = is_pending();
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  const ssize_t written = ::write(descriptor, data, size);
  const int error = errno;
  if (written < 0 && error == EPIPE && !was_pending && is_pending()) {
    int taken = 0;
    sigwait(&pipe_signal, &taken);  // at once: it is pending
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return written;
}

/// One run of one command.
class run_capture {
 public:
  /// Borrows all of them. The ends may be empty where a stream is not piped.
  run_capture(const run_options& options, run_result& result, file_descriptor& in, file_descriptor& out,
              file_descriptor& err)
      : options_(options), result_(result), in_(in), out_(out), err_(err), buffer_(65'536, '\0') {
    for (const file_descriptor* end : {&in_, &out_, &err_})
      if (*end) ::fcntl(end->get(), F_SETFL, ::fcntl(end->get(), F_GETFL) | O_NONBLOCK);
    if (options_.input.empty()) in_.reset();
  }

  /// Moves bytes until `exit_fd` is readable (true) or `end` has passed (false). What on_output
  /// throws comes through; so does std::bad_alloc.
  bool pump(int exit_fd, const deadline& end, std::error_code& ec) {
    ec.clear();
    for (;;) {
      pollfd entries[4] = {
          {exit_fd, POLLIN, 0}, {in_.get(), POLLOUT, 0}, {out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}};
      const int ready = platform::sys::ppoll(entries, 4, end.left(), nullptr);
      if (ready < 0 && ready != -EINTR) {
        ec.assign(-ready, std::system_category());
        return false;
      }
      if (ready > 0) {
        if (entries[1].revents != 0) feed();
        if (entries[2].revents != 0) read_some(out_, result_.out, true);
        if (entries[3].revents != 0) read_some(err_, result_.err, false);
        if (entries[0].revents != 0) return true;
      }
      // Also with a command that never pauses: a flood must not outrun the time.
      if (end.passed()) return false;
    }
  }

  /// Takes what the pipes still hold, and waits for nothing. At most `limit` bytes of each: who
  /// still writes now is outside of the command's tree, and may never stop.
  void drain(std::size_t limit = std::size_t{1} << 20) {
    const auto empty = [&](file_descriptor& end, std::string& kept, bool is_out) {
      for (std::size_t taken = 0, size = 1; end && size != 0 && taken < limit; taken += size)
        size = read_some(end, kept, is_out);
    };
    empty(out_, result_.out, true);
    empty(err_, result_.err, false);
  }

 private:
  void feed() noexcept {
    const std::string_view rest = std::string_view(options_.input).substr(fed_);
    const ssize_t written = write_without_sigpipe(in_.get(), rest.data(), rest.size());
    if (written > 0) fed_ += static_cast<std::size_t>(written);
    const bool again = written < 0 && (errno == EAGAIN || errno == EINTR);
    // A command that does not read its input to the end is no error: `head` does so.
    if ((written < 0 && !again) || fed_ == options_.input.size()) in_.reset();
  }

  /// Bytes taken; 0 when there is nothing now, or nothing any more (then `end` is closed).
  std::size_t read_some(file_descriptor& end, std::string& kept, bool is_out) {
    const ssize_t size = ::read(end.get(), buffer_.data(), buffer_.size());
    if (size <= 0) {
      if (size == 0 || (errno != EAGAIN && errno != EINTR)) end.reset();
      return 0;
    }
    const char* const start = buffer_.data();
    const std::string_view piece(start, static_cast<std::size_t>(size));
    if (is_out && options_.on_output) {
      options_.on_output(piece);
    } else {
      const std::size_t room = options_.max_output > kept.size() ? options_.max_output - kept.size() : 0;
      kept.append(piece.data(), piece.size() < room ? piece.size() : room);
      if (piece.size() > room) result_.truncated = true;
    }
    return piece.size();
  }

  const run_options& options_;
  run_result& result_;
  file_descriptor& in_;
  file_descriptor& out_;
  file_descriptor& err_;
  std::string buffer_;
  std::size_t fed_ = 0;
};

/// Where run's streams lead: captured, unless the caller said otherwise.
inline void prepare_streams(run_options& options) {
  spawn_options& process = options.process;
  if (!options.input.empty()) process.in = stdio::pipe();
  if (process.in.to == stdio::target::inherit) process.in = stdio::null();
  if (process.out.to == stdio::target::inherit) process.out = stdio::pipe();
  if (process.err.to == stdio::target::inherit) process.err = stdio::pipe();
}

}  // namespace instance_guard::detail
