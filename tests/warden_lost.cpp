// A warden that is killed or stopped is noticed, and nothing is promised that can't be kept.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <instance_guard/process_group.hpp>
#include <iterator>
#include <string>

#include "support/forked.hpp"
#include "support/has_slept.hpp"
#include "support/process_census.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/stepped_process.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

TEST_CASE("verify asks for the warden, too, in two system calls") {
  const scene s;
  const std::string name = support::unique_name("verify");
  ::mkdir((s / "locks").c_str(), 0700);
  support::stepped_process one([&] {
    pid_lockfile lock(name, {.directory = s / "locks"});
    process_group group;
    group.keep_locked(lock);
    std::error_code ec;
    lock.verify(ec);
    if (ec) return 1;
    support::stepped_process::mark();
    lock.verify(ec);
    support::stepped_process::mark();
    if (ec) return 2;
    ::kill(group.warden().pid, SIGKILL);
    for (int i = 0; i < 1'000 && !ec; ++i) ::usleep(1'000), lock.verify(ec);
    return ec == errc::warden_lost ? 0 : 3;  // it was asked for
  });
  if (!one.possible() || !one.run_to_mark()) {
    MESSAGE("skipped: no ptrace here");
    return;
  }
  const int before = one.calls();
  REQUIRE(one.run_to_mark());
  CHECK(one.calls() - before - 1 == 2);
  CHECK(one.finish() == 0);
}

TEST_CASE("a killed warden is noticed, and its children die with it") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  ::kill(group.warden().pid, SIGKILL);  // this process's own child, not reaped
  std::error_code ec;
  CHECK(wait_until([&] { return !group.warden_alive(); }));
  CHECK(wait_until([&] { return s.empty(); }));
  c.wait(ec);
  CHECK(ec == errc::warden_lost);
  CHECK_FALSE(group.spawn({"true"}, ec));
  CHECK(ec == errc::warden_lost);
  CHECK_FALSE(group.terminate(ec).proven_empty);
  CHECK(ec == errc::warden_lost);
  CHECK_FALSE(group.wait_idle(ec));
  CHECK(ec == errc::warden_lost);
  CHECK_FALSE(group.nested(ec));
  CHECK(ec == errc::warden_lost);
}

TEST_CASE("a waiting thread hears of the warden's death") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  const pid_t warden = group.warden().pid;
  forked killer([&](teller) {
    const bool waits = wait_until([] { return support::has_slept(::getppid(), 20ms); });
    ::kill(warden, SIGKILL);
    return waits ? 0 : 1;
  });
  std::error_code ec;
  CHECK_FALSE(group.wait_idle(2 * support::patience, ec));
  CHECK(ec == errc::warden_lost);
  CHECK(killer.wait().success());
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("a stopped warden is noticed, and what was asked of it meanwhile is not done later") {
  const scene s;
  process_group group;
  const pid_t warden = group.warden().pid;
  ::kill(warden, SIGSTOP);
  CHECK(wait_until([&] { return !group.warden_alive(); }));
  std::error_code ec;
  CHECK_FALSE(group.spawn({"/bin/sh", "-c", "echo started > " + (s / "started")}, ec));
  CHECK(ec == errc::warden_lost);
  ::kill(warden, SIGCONT);
  CHECK(wait_until([&] { return group.warden_alive(); }));
  CHECK(group.spawn({"true"}).wait().success());  // comes after what was asked before
  CHECK(::access((s / "started").c_str(), F_OK) != 0);
}

TEST_CASE("a stopped warden is woken to end its group") {
  const scene s;
  {
    process_group group({.grace = 100ms});
    child c = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    REQUIRE(support::await_ready(c.out()) > 0);
    ::kill(group.warden().pid, SIGSTOP);
    CHECK(wait_until([&] { return !group.warden_alive(); }));
  }
  CHECK(s.empty());
  CHECK(support::children_of(::getpid()).empty());
}

TEST_CASE("a signal to the warden, other than KILL and STOP, does nothing") {
  const scene s;
  process_group group;
  for (int number = 1; number < 65; ++number)
    if (number != SIGKILL && number != SIGSTOP && number != 32 && number != 33) ::kill(group.warden().pid, number);
  CHECK(group.spawn({"true"}).wait().success());
  CHECK(group.warden_alive());
}

TEST_CASE("verify of a lock reports the dead and the stopped warden of its group") {
  const scene s;
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  pid_lockfile lock(support::unique_name("verify"), {.directory = s / "locks"});
  process_group group;
  group.keep_locked(lock);
  std::error_code ec;
  lock.verify(ec);
  CHECK_FALSE(ec);
  ::kill(group.warden().pid, SIGSTOP);
  CHECK(wait_until([&] {
    lock.verify(ec);
    return ec == errc::warden_lost;
  }));
  ::kill(group.warden().pid, SIGCONT);
  CHECK(wait_until([&] {
    lock.verify(ec);
    return !ec;
  }));
  ::kill(group.warden().pid, SIGKILL);
  CHECK(wait_until([&] {
    lock.verify(ec);
    return ec == errc::warden_lost;
  }));
}

TEST_CASE("others see a helper, not a second copy of the program") {
  ::setenv("TEST_SECRET", "1", 1);
  process_group group;
  const std::string base = "/proc/" + std::to_string(group.warden().pid);
  const auto read = [&](const char* name) {
    std::ifstream file(base + name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  CHECK(read("/comm") == "instance-warden\n");
  CHECK(std::string(read("/cmdline").c_str()).find("warden_lost") == std::string::npos);
  CHECK(std::string("instance-warden").starts_with(read("/cmdline").c_str()));
  CHECK(read("/environ").find('=') == std::string::npos);
  char where[256] = {};
  CHECK(::readlink((base + "/cwd").c_str(), where, sizeof where - 1) == 1);
}

TEST_CASE("the owner's death is seen although a forked copy keeps the channel") {
  const scene s;
  forked owner([&](teller test) {
    process_group group({.grace = 100ms});
    child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    // A raw clone runs no fork handlers, so this copy has every descriptor of its parent.
    const long copy = platform::fork_copy(SIGCHLD);
    if (copy == 0)
      for (;;) ::pause();
    test.say(std::to_string(copy));
    for (;;) ::pause();
  });
  const auto copy = owner.line();
  REQUIRE(copy);
  owner.signal(SIGKILL);
  owner.wait();
  CHECK(wait_until([&] { return support::processes_with(s.helper()).empty(); }));
  ::kill(std::atoi(copy->c_str()), SIGKILL);
}

TEST_CASE("an owner that becomes another program has ended") {
  const scene s;
  forked owner([&](teller test) {
    process_group group({.grace = 100ms});
    child c = group.spawn(s.words({"setsid", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    test.say("ready");
    ::execl("/bin/sleep", "sleep", "20", nullptr);
    return 1;
  });
  CHECK(owner.line() == "ready");
  CHECK(wait_until([&] { return s.empty(); }));
  CHECK(owner.wait(0ms) == exit_status());
}
