// A part of the test that runs in a process of its own, to be killed, or to change for good.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <instance_guard/process_group_types.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "wait_until.hpp"

namespace support {

/// What the forked part may say to the test: lines, and its exit status.
class teller {
 public:
  explicit teller(int descriptor) : descriptor_(descriptor) {}
  void say(const std::string& line) const {
    const std::string text = line + "\n";
    [[maybe_unused]] const auto size = ::write(descriptor_, text.data(), text.size());
  }

 private:
  int descriptor_;
};

/// Runs `part(teller)` in a forked copy of the test, which exits with what it returns, without
/// destructors or exit handlers of the test. Ended and reaped with the object.
class [[nodiscard]] forked {
 public:
  template <class Part>
  explicit forked(Part part) {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      int code = 99;
      try {
        code = part(teller(ends[1]));
      } catch (const std::exception& fault) {
        std::fprintf(stderr, "in a forked part: %s\n", fault.what());
      }
      ::_exit(code);
    }
    ::close(ends[1]);
    lines_ = ends[0];
  }
  forked(const forked&) = delete;
  forked& operator=(const forked&) = delete;
  ~forked() {
    if (!status_ && pid_ > 0) {
      ::kill(pid_, SIGKILL);  // not reaped yet, so it is ours
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(lines_);
  }

  pid_t pid() const { return pid_; }
  void signal(int number) const {
    if (!status_) ::kill(pid_, number);
  }

  /// The next line that it says; nothing once it has ended, or after 20 s.
  std::optional<std::string> line(std::chrono::milliseconds limit = patience) {
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const auto newline = buffer_.find('\n');
      if (newline != std::string::npos) {
        const std::string first = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        return first;
      }
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd entry{lines_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&entry, 1, static_cast<int>(left.count())) <= 0) return {};
      char text[4096];
      const auto size = ::read(lines_, text, sizeof text);
      if (size <= 0) return {};
      buffer_.append(text, static_cast<std::size_t>(size));
    }
  }

  /// How it ended; "not ended" after 20 s.
  instance_guard::exit_status wait(std::chrono::milliseconds limit = patience) {
    wait_until(
        [&] {
          siginfo_t info = {};
          if (status_) return true;
          if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return false;
          status_ = instance_guard::exit_status(info.si_code, info.si_status);
          return true;
        },
        limit);
    return status_.value_or(instance_guard::exit_status());
  }

 private:
  pid_t pid_ = -1;
  int lines_ = -1;
  std::string buffer_;
  std::optional<instance_guard::exit_status> status_;
};

}  // namespace support
