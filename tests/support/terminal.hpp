// A terminal of its own, with a program in front of it: what is typed, and what is seen.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/file_descriptor.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "wait_until.hpp"

namespace support {

class [[nodiscard]] terminal {
 public:
  /// Starts the program as the leader of a session whose terminal this is.
  explicit terminal(std::vector<std::string> words, std::vector<std::string> environment = {})
      : master_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    REQUIRE(master_);
    REQUIRE(::grantpt(master_.get()) == 0);
    REQUIRE(::unlockpt(master_.get()) == 0);
    char name[128];
    REQUIRE(::ptsname_r(master_.get(), name, sizeof name) == 0);
    std::vector<char*> list;
    for (std::string& each : words) list.push_back(each.data());
    list.push_back(nullptr);
    leader_ = ::fork();
    if (leader_ == 0) {
      ::setsid();
      const int slave = ::open(name, O_RDWR);
      ::ioctl(slave, TIOCSCTTY, 0);
      for (int i = 0; i < 3; ++i) ::dup2(slave, i);
      if (slave > 2) ::close(slave);
      for (std::string& each : environment) ::putenv(each.data());
      for (const int number : {SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGHUP}) ::signal(number, SIG_DFL);
      ::execvp(list[0], list.data());
      ::_exit(127);
    }
    REQUIRE(leader_ > 0);
  }
  /// An interactive shell with the prompt "% ".
  static terminal with_shell(std::vector<std::string> environment) {
    environment.insert(environment.end(), {"PS1=% ", "HISTFILE=/dev/null", "TERM=xterm"});
    terminal result({"bash", "--norc", "--noprofile", "--noediting", "-i"}, std::move(environment));
    REQUIRE(result.see("% "));
    return result;
  }
  terminal(terminal&& other) noexcept
      : master_(std::move(other.master_)), leader_(std::exchange(other.leader_, -1)), seen_(std::move(other.seen_)) {}
  terminal& operator=(terminal&&) = delete;
  ~terminal() {
    close();
    if (leader_ <= 0) return;
    ::kill(leader_, SIGKILL);
    ::waitpid(leader_, nullptr, 0);
  }

  pid_t leader() const noexcept { return leader_; }
  int fd() const noexcept { return master_.get(); }

  void type(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t wrote = ::write(master_.get(), text.data(), text.size());
      REQUIRE(wrote > 0);
      text.remove_prefix(static_cast<std::size_t>(wrote));
    }
  }
  void press(char letter) const { type(std::string(1, static_cast<char>(letter & 0x1f))); }

  /// Waits until this is seen, behind what was seen before.
  bool see(std::string_view text, std::chrono::milliseconds limit = patience) {
    skipped_.clear();
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const std::size_t at = seen_.find(text);
      if (at != std::string::npos) {
        skipped_ = seen_.substr(0, at);
        seen_.erase(0, at + text.size());
        return true;
      }
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd entry{master_.get(), POLLIN, 0};
      char block[4096];
      ssize_t size = -1;
      if (left.count() > 0 && ::poll(&entry, 1, static_cast<int>(left.count())) > 0)
        size = ::read(master_.get(), block, sizeof block);
      if (size <= 0) {
        MESSAGE("instead of \"" << text << "\": " << seen_);
        return false;
      }
      seen_.append(block, static_cast<std::size_t>(size));
    }
  }
  /// What came before what was seen last.
  const std::string& skipped() const noexcept { return skipped_; }

  /// Its process group in front.
  pid_t front() const noexcept { return ::tcgetpgrp(master_.get()); }
  bool has(tcflag_t local_flag) const noexcept {
    termios settings{};
    return ::tcgetattr(master_.get(), &settings) == 0 && (settings.c_lflag & local_flag) != 0;
  }
  void resize(unsigned short rows, unsigned short columns) const noexcept {
    const winsize size{rows, columns, 0, 0};
    ::ioctl(master_.get(), TIOCSWINSZ, &size);
  }

  /// Hangs up.
  void close() noexcept { master_.reset(); }

 private:
  instance_guard::file_descriptor master_;
  pid_t leader_ = -1;
  std::string seen_;
  std::string skipped_;
};

}  // namespace support
