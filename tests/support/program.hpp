// A program under a test's control: started, talked to, waited for. It does not use the library.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <instance_guard/file_descriptor.hpp>
#include <instance_guard/process_group_types.hpp>
#include <optional>
#include <poll.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "wait_until.hpp"

namespace support {

struct start_options {
  std::vector<std::string> environment = {};  // "K=V", added
  std::function<bool()> before_exec = {};     // in the child; false: exit 77, not set up
  bool merge_err = false;                     // stderr goes where stdout goes
};

/// One child of the test. When the object goes, the child is ended and reaped (its own children
/// are not: see scene).
class [[nodiscard]] program {
 public:
  explicit program(std::vector<std::string> arguments, start_options options = {}) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0)
      throw std::system_error(errno, std::generic_category(), "pipe");
    std::vector<char*> list;
    for (std::string& each : arguments) list.push_back(each.data());
    list.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      // The tool's warden leaves its job. When the last tie of a job to its session is cut while somebody in
      // it is stopped, the kernel hangs up all of it: that must not be the test, nor who runs the tests.
      if (arguments.front().ends_with("/instance-guard")) ::setpgid(0, 0);
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      if (options.merge_err) ::dup2(1, 2);
      for (std::string& each : options.environment) ::putenv(each.data());
      if (options.before_exec && !options.before_exec()) ::_exit(77);
      ::execvp(list[0], list.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    in_.reset(in[1]);
    out_.reset(out[0]);
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
  }
  program(program&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        in_(std::move(other.in_)),
        out_(std::move(other.out_)),
        buffer_(std::move(other.buffer_)),
        status_(other.status_) {}
  program& operator=(program&&) = delete;
  ~program() {
    if (pid_ <= 0 || status_) return;
    ::kill(pid_, SIGKILL);  // not reaped yet, so it is ours
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const noexcept { return pid_; }
  instance_guard::file_descriptor& in() noexcept { return in_; }
  instance_guard::file_descriptor& out() noexcept { return out_; }

  void signal(int number) const noexcept {
    if (pid_ > 0 && !status_) ::kill(pid_, number);
  }

  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t size = ::write(in_.get(), text.data(), text.size());
      if (size < 0) throw std::system_error(errno, std::generic_category(), "write");
      text.remove_prefix(static_cast<std::size_t>(size));
    }
  }

  /// The next line of its stdout, without the newline; nothing at the end, or after `limit`.
  std::optional<std::string> read_line(std::chrono::milliseconds limit = patience) {
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const std::size_t newline = buffer_.find('\n');
      if (newline != buffer_.npos) {
        std::string line = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        return line;
      }
      if (!read_more(end)) return std::nullopt;
    }
  }

  /// Reads lines until one starts with `start`, and returns it; nothing if none does in time.
  std::optional<std::string> read_until(std::string_view start, std::chrono::milliseconds limit = patience) {
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      auto line = read_line(rest);
      if (!line || line->starts_with(start)) return line;
    }
  }

  /// Everything until the last writer has gone.
  std::string read_all(std::chrono::milliseconds limit = patience) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (read_more(end)) {
    }
    return std::exchange(buffer_, {});
  }

  /// How it ended; nothing while it has not.
  std::optional<instance_guard::exit_status> wait(std::chrono::milliseconds limit = patience) {
    wait_until([&] { return ended(); }, limit);
    return status_;
  }

  bool ended() {
    if (status_) return true;
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return false;
    status_ = instance_guard::exit_status(info.si_code, info.si_status);
    return true;
  }

 private:
  bool read_more(std::chrono::steady_clock::time_point end) {
    const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd entry{out_.get(), POLLIN, 0};
    if (rest.count() <= 0 || ::poll(&entry, 1, static_cast<int>(rest.count())) <= 0) return false;
    char block[65'536];
    const ssize_t size = ::read(out_.get(), block, sizeof block);
    if (size <= 0) return false;
    buffer_.append(block, static_cast<std::size_t>(size));
    return true;
  }

  pid_t pid_ = -1;
  instance_guard::file_descriptor in_;
  instance_guard::file_descriptor out_;
  std::string buffer_;
  std::optional<instance_guard::exit_status> status_;
};

}  // namespace support
