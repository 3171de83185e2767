// reach::everything: whatever the program starts, by whatever means, ends with it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <instance_guard/lock_status.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <thread>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/stepped_process.hpp"
#include "support/stubborn_children.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

/// A sanitizer may have a thread of its own in every process, from the first fork on.
bool possible() {
  static const bool result = [] {
    forked copy([](teller) { return platform::has_one_thread() ? 0 : 1; });
    return copy.wait().success();
  }();
  return result;
}

process_group become(group_options options = {.grace = 200ms}) {
  std::error_code ec;
  process_group group = detail::become_child_of_warden(options, ec);
  if (ec) throw std::system_error(ec, "become");
  return group;
}

/// Starts what a library might start: not through the group.
bool start_by_itself(const scene& s, const std::string& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  const std::string line = s.helper() + " " + words + " &";
  const pid_t shell = ::fork();
  if (shell == 0) {
    ::dup2(ends[1], 1);
    ::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  const file_descriptor from(ends[0]);
  return ::waitpid(shell, nullptr, 0) == shell && support::await_ready(from) > 0;
}

}  // namespace

TEST_CASE("all kinds of children, none of them started through the group, end with the program") {
  if (!possible()) return;
  support::canary innocent;
  const scene s;
  for (const int how : {0, 1, 2}) {
    CAPTURE(how);
    forked program([&](teller test) {
      process_group group = become();
      for (const std::string& words : support::stubborn_children())
        if (!start_by_itself(s, words)) return 1;
      test.say(std::to_string(::getpid()));
      if (how == 0) return 7;  // leaves by _exit
      for (;;) ::pause();
      return 0;
    });
    const pid_t pid = std::atoi(program.line().value_or("0").c_str());
    REQUIRE(pid > 0);
    CHECK(pid != program.pid());
    if (how == 1) ::kill(pid, SIGKILL);
    if (how == 2) program.signal(SIGTERM);
    const exit_status status = program.wait();
    if (how == 0) CHECK(status.code() == 7);
    if (how == 1) CHECK(status.signal() == SIGKILL);
    if (how == 2) CHECK(status.signal() == SIGTERM);
    // Its end was the end of all of them.
    CHECK(s.empty());
  }
}

TEST_CASE("terminate ends everything but the program, which goes on") {
  if (!possible()) return;
  const scene s;
  forked program([&](teller test) {
    process_group group = become();
    if (!start_by_itself(s, "daemon ignore sleep")) return 1;
    child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 2;
    if (group.members().size() != 2) test.say("members " + std::to_string(group.members().size()));
    const termination_report report = group.terminate();
    if (!report.proven_empty) test.say(report.str());
    if (!s.empty()) test.say("not empty");
    if (!group.wait_idle(10s)) test.say("not idle");
    if (!group.warden_alive()) test.say("no warden");
    if (c.wait().signal() != SIGKILL) test.say("no status");
    if (group.spawn(s.words({"exit=3"})).wait().code() != 3) test.say("no new child");
    group = process_group(nullptr);
    if (!start_by_itself(s, "setsid ignore sleep")) return 3;
    return 4;
  });
  CHECK(program.line().value_or("nothing") == "nothing");
  CHECK(program.wait().code() == 4);
  CHECK(s.empty());
}

TEST_CASE("what the program starts by itself after a terminate() ends with it") {
  if (!possible()) return;
  const scene s;
  for (const bool held : {false, true}) {
    CAPTURE(held);
    forked program([&](teller) {
      process_group group = become();
      group.terminate();
      // With a child of the group the warden is told of; without one it hears of nobody.
      child c;
      if (held) c = group.spawn(s.words({"exit=0"}));
      if (held) c.wait();
      if (!start_by_itself(s, "setsid undying ignore cleared sleep")) return 1;
      // Its death takes a while: the warden sees its end of the channel closed long before it can reap it.
      for (int i = 0; i < 4000 && ::dup(STDERR_FILENO) >= 0; ++i) {
      }
      ::kill(::getpid(), SIGKILL);
      return 2;
    });
    CHECK(program.wait().signal() == SIGKILL);
    CHECK(s.empty());
  }
}

TEST_CASE("exit statuses, cores and signals are the program's") {
  if (!possible()) return;
  for (const int number : {SIGSEGV, SIGABRT, SIGINT, SIGHUP, SIGKILL, SIGUSR1}) {
    forked program([&](teller) {
      process_group group = become();
      ::signal(number, SIG_DFL);
      ::kill(::getpid(), number);
      for (;;) ::pause();
      return 0;
    });
    CHECK(program.wait().signal() == number);
  }
}

TEST_CASE("signals sent to the process that was started reach the program once") {
  if (!possible()) return;
  forked program([&](teller test) {
    sigset_t all;
    sigfillset(&all);
    ::sigprocmask(SIG_BLOCK, &all, nullptr);
    process_group group = become();
    test.say("ready");
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int number : {SIGUSR1, SIGTERM, SIGRTMIN + 1}) sigaddset(&wanted, number);
    timespec limit{5, 0};
    for (;;) {
      const int taken = ::sigtimedwait(&wanted, nullptr, &limit);
      if (taken < 0) return 1;
      test.say(std::to_string(taken));
      if (taken == SIGTERM) return 0;
    }
  });
  CHECK(program.line() == "ready");
  for (const int number : {SIGUSR1, SIGRTMIN + 1, SIGTERM}) {
    program.signal(number);
    CHECK(program.line() == std::to_string(number));
  }
  CHECK(program.wait().success());
}

TEST_CASE("who stops the program alone lets it go on alone") {
  if (!possible()) return;
  forked program([&](teller test) {
    process_group group = become();
    test.say(std::to_string(::getpid()));
    for (;;) ::pause();
    return 0;
  });
  const pid_t pid = std::atoi(program.line().value_or("0").c_str());
  REQUIRE(pid > 0);
  const auto state = [](pid_t of) {
    platform::process_stat facts;
    return platform::read_process_stat(of, facts) == 0 ? facts.state : '?';
  };
  for (int i = 0; i < 20; ++i) {
    ::kill(pid, SIGSTOP);  // as with the pid of a lock file
    CHECK(wait_until([&] { return state(pid) == 'T'; }));
    ::kill(pid, SIGCONT);
    CHECK(wait_until([&] { return state(pid) == 'S'; }));
  }
  ::kill(pid, SIGTERM);
  CHECK(program.wait().signal() == SIGTERM);  // the warden is there to say so
}

TEST_CASE("it stops and goes on with the program") {
  if (!possible()) return;
  forked program([&](teller test) {
    ::setpgid(0, 0);  // else it may be in an orphaned group, where SIGTSTP does nothing
    process_group group = become();
    test.say(std::to_string(::getpid()));
    for (;;) ::pause();
    return 0;
  });
  const pid_t pid = std::atoi(program.line().value_or("0").c_str());
  REQUIRE(pid > 0);
  const auto state = [](pid_t of) {
    platform::process_stat facts;
    return platform::read_process_stat(of, facts) == 0 ? facts.state : '?';
  };
  program.signal(SIGTSTP);
  CHECK(wait_until([&] { return state(pid) == 'T' && state(program.pid()) == 'T'; }));
  program.signal(SIGCONT);
  CHECK(wait_until([&] { return state(pid) == 'S'; }));
  program.signal(SIGKILL);  // who kills the process that was started means the program
  program.wait();
  CHECK(wait_until([&] { return !support::alive(pid); }));
}

TEST_CASE("variables that name a process name the program, and the service manager is told") {
  if (!possible()) return;
  const scene s;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, (s / "notify").c_str());
  const file_descriptor manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(manager.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  forked program([&](teller test) {
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("WATCHDOG_PID", "1", 1);
    ::setenv("NOTIFY_SOCKET", (s / "notify").c_str(), 1);
    process_group group = become();
    test.say(std::to_string(::getpid()));
    test.say(::getenv("LISTEN_PID"));
    test.say(::getenv("WATCHDOG_PID"));
    return 0;
  });
  const auto pid = program.line();
  REQUIRE(pid);
  CHECK(program.line() == pid);
  CHECK(program.line() == "1");
  char text[100] = {};
  CHECK(::recv(manager.get(), text, sizeof text - 1, 0) > 0);
  CHECK(text == "MAINPID=" + *pid);
  CHECK(program.wait().success());
}

TEST_CASE("with threads it is refused, and nothing is changed") {
  std::atomic<bool> end = false;
  std::thread other([&] { end.wait(false); });
  std::error_code ec;
  const pid_t before = ::getpid();
  CHECK_FALSE(detail::become_child_of_warden({}, ec));
  CHECK(ec == errc::threads_running);
  CHECK(::getpid() == before);
  end = true;
  end.notify_all();
  other.join();
}

TEST_CASE("the name is held until the last child of a killed program is dead") {
  if (!possible()) return;
  const scene s;
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  const std::string name = support::unique_name("everything");
  forked program([&](teller test) {
    single_instance guard = single_instance::acquire(
        name, {.lock = {.directory = s / "locks"}, .children = {.grace = 500ms}, .ends = reach::everything});
    if (!start_by_itself(s, "daemon ignore sleep")) return 1;
    test.say(std::to_string(::getpid()));
    for (;;) ::pause();
    return 0;
  });
  const pid_t pid = std::atoi(program.line().value_or("0").c_str());
  REQUIRE(pid > 0);
  const lock_status held = query_lock(name, {.directory = s / "locks"});
  CHECK(held.state == lock_state::held);
  REQUIRE(held.holder);
  CHECK(held.holder->process.pid == pid);
  CHECK(held.holder->warden.pid == program.pid());
  ::kill(pid, SIGKILL);
  std::error_code ec;
  CHECK(wait_until([&] {
    pid_lockfile next(name, {.directory = s / "locks"}, ec);
    if (ec) return false;
    CHECK(s.empty());
    return true;
  }));
  program.wait();
}

TEST_CASE("a warden that takes long to begin is waited for: the machine may be busy") {
  if (!possible()) return;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  {
    support::stepped_process one([&] {
      std::error_code ec;
      const process_group group = detail::become_child_of_warden({.grace = 200ms}, ec);
      return ::write(ends[1], ec ? "refused" : "started", 7) == 7 && !ec ? 7 : 1;
    });
    if (!one.possible() || !one.run_to(SYS_clone) || !one.finish_call()) {
      MESSAGE("skipped: no ptrace here");
    } else {
      // There are two now, and this one is held before it says hello.
      pollfd word = {ends[0], POLLIN, 0};
      CHECK(::poll(&word, 1, 600) == 0);
      const int status = one.finish();
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 7);
    }
  }
  ::close(ends[0]);
  ::close(ends[1]);
}
