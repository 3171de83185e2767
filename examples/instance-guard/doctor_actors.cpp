#include "doctor_actors.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <thread>

#include <instance_guard/lock_status.hpp>
#include <instance_guard/single_instance.hpp>

#include "process_text.hpp"
#include "text.hpp"

namespace tool {

using instance_guard::pid_lockfile;
using instance_guard::single_instance;
using std::chrono::steady_clock;

namespace {

[[noreturn]] void stay() {
  print("ready " + std::to_string(::getpid()) + "\n");
  for (;;) ::pause();
}

/// Takes a name as a program does, with four descendants that make it hard.
[[noreturn]] void own(const std::string& name) {
  instance_guard::single_instance_options options;
  options.children.grace = std::chrono::milliseconds(0);  // how fast it can be
  auto guard = single_instance::acquire(name, options);
  for (const char* each : {"sleep", "deaf", "setsid", "daemon"}) guard.spawn(role({each}));
  print("warden " + std::to_string(guard.children().warden().pid) + "\n");
  for (;;) ::pause();
}

/// 0: took the name and let it go; 75: refused; 1: a fault, which is said.
int take(const std::vector<std::string>& words) {
  instance_guard::lock_options options;
  if (words.size() > 2) options.directory = words[2];
  std::error_code ec;
  const pid_lockfile lock(words[1], options, ec);
  if (!ec) return 0;
  print(lock.explanation() + "\n");
  return ec == instance_guard::errc::already_running ? 75 : 1;
}

/// As a start of the program: what the last one left ends before it goes on.
int start(const std::string& name) {
  std::error_code ec;
  const auto guard = single_instance::acquire(name, ec);
  if (ec) print(guard.explanation() + "\n");
  return ec ? 1 : 0;
}

}  // namespace

int play(const std::vector<std::string>& words) {
  ::alarm(60);
  const std::string what = words.empty() ? std::string() : words.front();
  if (what == "take" && words.size() > 1) return take(words);
  if (what == "start" && words.size() > 1) return start(words[1]);
  if (what == "owner" && words.size() > 1) own(words[1]);
  if (what == "deaf") {
    ::signal(SIGTERM, SIG_IGN);
    ::signal(SIGHUP, SIG_IGN);
    stay();
  }
  if (what == "setsid" || what == "daemon") {
    const bool twice = what == "daemon";
    if (const pid_t child = ::fork(); child != 0) {
      if (twice) ::_exit(0);
      for (;;) ::pause();
    }
    ::setsid();
    if (twice && ::fork() != 0) ::_exit(0);
    ::alarm(60);
    stay();
  }
  if (what == "other-user") {
    constexpr uid_t nobody = 65'534;
    if (::setresuid(nobody, nobody, nobody) != 0) {
      print("refused\n");
      return 1;
    }
    stay();
  }
  if (what == "sleep") stay();
  return 2;
}

std::vector<std::string> role(const std::vector<std::string>& words) {
  std::vector<std::string> result = {own_program(), "doctor"};
  for (const std::string& each : words) result.insert(result.end(), {"--play", each});
  return result;
}

actor::actor(const std::vector<std::string>& words) {
  int in[2] = {-1, -1};
  int out[2] = {-1, -1};
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0)
    throw std::system_error(errno, std::system_category(), "pipe");
  std::vector<std::string> command = role(words);
  std::vector<char*> list;
  for (std::string& each : command) list.push_back(each.data());
  list.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(::open("/dev/null", O_WRONLY), 2);  // what fails is told by the doctor
    ::execv(list[0], list.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  in_.reset(in[1]);
  out_.reset(out[0]);
  if (pid_ < 0) throw std::system_error(errno, std::system_category(), "fork");
}

actor::~actor() {
  if (pid_ <= 0 || code_) return;
  ::kill(pid_, SIGKILL);  // not reaped yet, so it is ours
  ::waitpid(pid_, nullptr, 0);
}

std::optional<std::string> actor::line() {
  const auto end = steady_clock::now() + patience;
  for (;;) {
    const std::size_t newline = buffer_.find('\n');
    if (newline != std::string::npos) {
      const std::string first = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return first;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now());
    pollfd entry{out_.get(), POLLIN, 0};
    if (left.count() <= 0 || ::poll(&entry, 1, static_cast<int>(left.count())) <= 0) return {};
    char text[4096];
    const ssize_t size = ::read(out_.get(), text, sizeof text);
    if (size <= 0) return {};
    buffer_.append(text, static_cast<std::size_t>(size));
  }
}

void actor::kill() const {
  if (!code_) ::kill(pid_, SIGKILL);
}

int actor::wait() {
  if (code_) return *code_;
  // Not by a handle: that needs /proc, which may be missing here.
  const auto end = steady_clock::now() + patience;
  int status = 0;
  pid_t ended = 0;
  while ((ended = ::waitpid(pid_, &status, WNOHANG)) == 0 && steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (ended != pid_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status, 0);
    status = 9;
  }
  code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return *code_;
}

pid_t number_behind(const std::string& line, const std::string& word) {
  if (line.compare(0, word.size() + 1, word + " ") != 0) return 0;
  return static_cast<pid_t>(std::strtol(line.c_str() + word.size() + 1, nullptr, 10));
}

void forget(const std::string& name) {
  std::error_code ec;
  const instance_guard::lock_status left = query_lock(name, instance_guard::lock_options{}, ec);
  const bool nobodys =
      left.state == instance_guard::lock_state::free || left.state == instance_guard::lock_state::abandoned;
  if (!ec && nobodys && !left.path.empty()) ::unlink(left.path.c_str());
}

std::string doctors_name(const std::string& purpose) { return "doctor-" + purpose + "-" + std::to_string(::getpid()); }

}  // namespace tool
