// A program with a mark, a warden's stand-in beside it, and what the two leave behind.
//
// Everything is real but the warden: it looks for strays as the real one does, and hands its report
// to the test. Owner and warden are forked from the test, what they start is started for real.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <functional>
#include <instance_guard/detail/stray_mark.hpp>
#include <instance_guard/detail/stray_scan.hpp>
#include <memory>
#include <optional>
#include <signal.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "support/scene.hpp"

namespace stray_test {

namespace ig = instance_guard::detail;
namespace platform = instance_guard::platform;
using namespace std::chrono_literals;

inline void write_all(int descriptor, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor, at, size);
    if (written <= 0) _exit(74);
    at += written;
    size -= static_cast<std::size_t>(written);
  }
}

/// False at the end of the file, or after a long time without a byte.
inline bool read_all(int descriptor, void* data, std::size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    pollfd entry{descriptor, POLLIN, 0};
    if (::poll(&entry, 1, 30'000) <= 0) return false;
    const ssize_t got = ::read(descriptor, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

inline std::pair<int, int> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  return {ends[0], ends[1]};
}

/// "ready pid=N", from a process that does not run the helper program.
inline void say_ready() {
  char line[64];
  const int size = std::snprintf(line, sizeof line, "ready pid=%d\n", ::getpid());
  write_all(1, line, static_cast<std::size_t>(size));
}

/// Ends the calling process after a while, whatever the code under test does.
inline void cap(unsigned seconds = 60) {
  ::signal(SIGALRM, SIG_DFL);
  ::alarm(seconds);
}

/// The owner's end of the pipe whose end tells the warden that the owner is gone.
inline int life_line = -1;

/// A copy of the caller by fork, which says ready and then does nothing.
inline pid_t copy_that_stays(const std::function<void()>& first = {}) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  cap();
  ::close(life_line);
  if (first) first();
  say_ready();
  for (;;) ::pause();
}

/// What the warden does once the group is empty.
inline int end_strays(const ig::stray_target& target, int stop_signal, std::chrono::milliseconds grace,
                      std::chrono::milliseconds killing, ig::stray_buffers& memory, ig::stray_report& report) {
  auto end = std::chrono::steady_clock::now() + grace;
  int number = stop_signal;
  for (;;) {
    const int count = ig::strays_signal(target, number, memory, report);
    if (count < 0 || (count == 0 && report.conclusive)) return count;
    if (std::chrono::steady_clock::now() >= end) {
      if (number == SIGKILL) return count;
      number = SIGKILL;
      end = std::chrono::steady_clock::now() + killing;
    }
    ::usleep(2000);
  }
}

struct outcome {
  int left = -1;          ///< what the last scan found, or a negated errno
  bool answered = false;  ///< false: the warden did not get that far
  double milliseconds = 0;
  ig::stray_report report = {};

  const ig::stray_event* event(pid_t pid) const {
    for (int i = 0; i < report.count; ++i)
      if (report.events[i].pid == pid) return &report.events[i];
    return nullptr;
  }
  bool signalled(pid_t pid) const {
    for (int i = 0; i < report.count; ++i)
      if (report.events[i].pid == pid && report.events[i].fate == ig::stray_fate::signalled) return true;
    return false;
  }
  std::optional<ig::stray_fate> fate(pid_t pid) const {
    const auto* found = event(pid);
    return found == nullptr ? std::nullopt : std::optional(found->fate);
  }
  std::string str() const {
    std::string text = "left " + std::to_string(left);
    for (int i = 0; i < report.count; ++i) {
      const auto& each = report.events[i];
      text += "\n  pid " + std::to_string(each.pid) + " (" + each.name + ") of " + std::to_string(each.parent) +
              ", signal " + std::to_string(each.signal) + ": " + ig::to_string(each.fate);
    }
    return text;
  }
};

struct stage_options {
  std::chrono::milliseconds grace = 2s;
  std::chrono::milliseconds killing = 10s;
  int stop_signal = SIGTERM;
  std::function<void()> before_mark = {};              ///< in the owner
  std::function<void(ig::stray_target&)> change = {};  ///< in the warden: what it looks for
  std::function<void(const ig::stray_report&)> at_end = {};
};

/// One owner with its warden. `act` runs in the owner once it has the mark.
class stage {
 public:
  explicit stage(const support::scene& scene, std::function<void(const ig::stray_mark&)> act,
                 stage_options options = {})
      : options_(std::move(options)) {
    const auto [out_read, out_write] = make_pipe();
    const auto [command_read, command_write] = make_pipe();
    const auto [result_read, result_write] = make_pipe();
    std::fflush(nullptr);
    owner_ = ::fork();
    if (owner_ == 0) {
      // Only the test itself may hold the other ends: their end is the warden's cue.
      ::close(out_read);
      ::close(command_write);
      ::close(result_read);
      ::dup2(out_write, 1);
      std::string environment = scene.mark();
      ::putenv(environment.data());
      owner_main(act, command_read, result_write);
    }
    ::close(out_write);
    ::close(command_read);
    ::close(result_write);
    out_.reset(out_read);
    command_.reset(command_write);
    result_.reset(result_read);
  }
  ~stage() {
    ::kill(owner_, SIGKILL);  // not reaped before
    ::waitpid(owner_, nullptr, 0);
  }

  pid_t owner() const { return owner_; }

  /// The pids of `count` processes that said they are ready.
  std::vector<pid_t> ready(std::size_t count) {
    std::vector<pid_t> pids;
    while (pids.size() < count) {
      const std::string line = read_line();
      if (line.empty()) break;
      if (line.starts_with("ready pid=")) pids.push_back(static_cast<pid_t>(std::atoi(line.c_str() + 10)));
    }
    CHECK_MESSAGE(pids.size() == count, "too few processes started");
    return pids;
  }
  std::string read_line() {
    std::string line;
    for (char c = 0; read_all(out_.get(), &c, 1) && c != '\n';) line += c;
    return line;
  }

  /// The owner is killed; the warden ends its strays.
  outcome kill() {
    ::kill(owner_, SIGKILL);
    return result();
  }
  /// The owner says goodbye, and lives until the warden is done.
  outcome leave() {
    write_all(command_.get(), "l", 1);
    return result();
  }
  /// The owner becomes another program that stays.
  outcome execute() {
    write_all(command_.get(), "x", 1);
    return result();
  }

 private:
  outcome result() {
    outcome end;
    end.answered = read_all(result_.get(), &end.left, sizeof end.left) &&
                   read_all(result_.get(), &end.milliseconds, sizeof end.milliseconds) &&
                   read_all(result_.get(), &end.report, sizeof end.report);
    CHECK(end.answered);
    return end;
  }

  [[noreturn]] void owner_main(const std::function<void(const ig::stray_mark&)>& act, int command, int result) {
    cap(120);
    if (options_.before_mark) options_.before_mark();
    std::error_code ec;
    const ig::stray_mark mark = ig::make_stray_mark(ec);
    // A sanitizer may have a thread of its own, which counts; here it does no harm.
    if (!mark.env_set) ::setenv(ig::mark_variable, mark.nonce, 1);
    ig::stray_target target = ig::target_of(mark);
    const auto [life_read, life_write] = make_pipe();
    const auto [done_read, done_write] = make_pipe();
    if (ec || ::fork() == 0) {
      if (ec) _exit(70);
      ::close(life_write);
      ::close(done_read);
      warden_main(target, life_read, done_write, result);
    }
    ::close(life_read);
    ::close(done_write);
    ::close(result);
    life_line = life_write;
    act(mark);
    char order = 0;
    if (!read_all(command, &order, 1)) _exit(71);
    if (order == 'x') {
      ::close(1);
      const char* arguments[] = {"sleep", "60", nullptr};
      ::execvp("sleep", const_cast<char**>(arguments));
    }
    write_all(life_write, "goodbye", 7);
    char answer = 0;
    read_all(done_read, &answer, 1);
    for (;;) ::pause();
  }

  [[noreturn]] void warden_main(ig::stray_target target, int life, int done, int result) {
    ig::forget_marks_in_copy();
    platform::rename_self("warden");
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    ::setsid();
    ::close(1);
    target.first_parent = target.owner;
    if (options_.change) options_.change(target);
    // A child of the owner that shares its memory holds the pipe open as well.
    for (pollfd entry{life, POLLIN, 0}; ::poll(&entry, 1, 1) == 0 && ::getppid() == target.owner;) {
    }
    static ig::stray_buffers memory;
    static ig::stray_report report;
    const auto start = std::chrono::steady_clock::now();
    const int left = end_strays(target, options_.stop_signal, options_.grace, options_.killing, memory, report);
    const double milliseconds =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    if (options_.at_end) options_.at_end(report);
    write_all(result, &left, sizeof left);
    write_all(result, &milliseconds, sizeof milliseconds);
    write_all(result, &report, sizeof report);
    write_all(done, "d", 1);
    _exit(0);
  }

  stage_options options_;
  pid_t owner_ = -1;
  instance_guard::file_descriptor out_, command_, result_;
};

}  // namespace stray_test
