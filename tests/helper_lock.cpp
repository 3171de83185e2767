// A process that takes a lock and does as it is told, one line at a time.
//
//   helper_lock NAME [directory=D] [wait=MS] [cleanup_wait=MS] [replace] [host] [version=V]
//   [network]
//
// Says "taken PID RECOVERED-PID PATH", or "refused HOLDER-PID CODE" (exit 75), or
// "fault CODE TEXT" (exit 73). Then obeys: verify, release, exit, leave (_exit), crash, warden MS,
// fork, update, close-all. Each answers with one line. End of input: returns from main.
#include <instance_guard/pid_lockfile.hpp>

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

using namespace instance_guard;

namespace {

std::chrono::milliseconds number_after(const std::string& text, std::size_t at) {
  if (text.substr(at) == "forever") return no_limit;
  return std::chrono::milliseconds(std::strtoll(text.c_str() + at, nullptr, 10));
}

bool starts(const std::string& text, const std::string& with) { return text.compare(0, with.size(), with) == 0; }

void say(const std::string& line) {
  std::string all = line + "\n";
  if (::write(1, all.data(), all.size()) < 0) ::_exit(70);
}

std::string name_of(const std::error_code& ec) {
  if (!ec) return "ok";
  if (ec == errc::already_running) return "already_running";
  if (ec == errc::still_cleaning_up) return "still_cleaning_up";
  if (ec == errc::lock_lost) return "lock_lost";
  if (ec == errc::warden_lost) return "warden_lost";
  if (ec == errc::unsafe_directory) return "unsafe_directory";
  if (ec == errc::invalid_name) return "invalid_name";
  if (ec == errc::network_file_system) return "network_file_system";
  if (ec == errc::managed_holder) return "managed_holder";
  if (ec == errc::timed_out) return "timed_out";
  return "errno-" + std::to_string(ec.value());
}

/// A fork that runs no handlers, as a warden is made: it keeps copies of the locks until killed.
void start_fake_warden(pid_lockfile& lock, std::chrono::milliseconds grace) {
  const long pid = ::syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) {
    ::alarm(300);  // ends by itself, whatever becomes of the test
    for (;;) ::pause();
  }
  std::error_code ec;
  lock_record changes = lock.record();
  changes.warden = process_identity::of(static_cast<pid_t>(pid), ec);
  changes.mark = std::string(32, 'a');
  changes.grace = grace;
  detail::lock_update_record(lock, changes, ec);
  say("warden " + std::to_string(pid) + " " + name_of(ec));
}

}  // namespace

int main(int count, char** arguments) {
  ::alarm(300);
  lock_options options;
  for (int i = 2; i < count; ++i) {
    const std::string each = arguments[i];
    if (starts(each, "directory=")) options.directory = each.substr(10);
    if (starts(each, "wait=")) options.wait = number_after(each, 5);
    if (starts(each, "cleanup_wait=")) options.cleanup_wait = number_after(each, 13);
    if (starts(each, "version=")) options.version = each.substr(8);
    if (each == "replace") options.replace = true;
    if (each == "network") options.allow_network_file_system = true;
    if (each == "host") options.scope = lock_scope::host;
  }
  std::error_code ec;
  pid_lockfile lock(count > 1 ? arguments[1] : "", options, ec);
  if (ec == errc::already_running || ec == errc::still_cleaning_up) {
    say("refused " + std::to_string(lock.holder() ? lock.holder()->process.pid : 0) + " " + name_of(ec));
    return 75;
  }
  if (ec) {
    std::string text = lock.explanation();
    for (char& c : text)
      if (c == '\n') c = '|';
    say("fault " + name_of(ec) + " " + text);
    return 73;
  }
  say("taken " + std::to_string(::getpid()) + " " +
      std::to_string(lock.recovered_from() ? lock.recovered_from()->process.pid : 0) + " " + lock.path().string());
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "verify") {
      lock.verify(ec);
      say(name_of(ec));
    } else if (line == "release") {
      lock.release();
      say("released");
    } else if (line == "exit") {
      std::exit(0);
    } else if (line == "leave") {
      ::_exit(0);
    } else if (line == "crash") {
      ::kill(::getpid(), SIGKILL);
    } else if (starts(line, "warden")) {
      start_fake_warden(lock, number_after(line, 7));
    } else if (line == "fork") {  // the child stays until its own input ends, with its copy of the object
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(300);
        ::pause();
        return 0;
      }
      say("forked " + std::to_string(child));
    } else if (line == "clone") {  // the same without handlers
      const long child = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
      if (child == 0) {
        ::alarm(300);
        ::pause();
        return 0;
      }
      say("forked " + std::to_string(child));
    } else if (line == "close-all") {
      for (int descriptor = 3; descriptor < 1024; ++descriptor) ::close(descriptor);
      say("closed");
    }
  }
  return 0;
}
