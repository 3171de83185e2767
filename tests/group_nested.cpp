// Groups within a group.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <instance_guard/process_group.hpp>
#include <string>
#include <system_error>
#include <thread>

#include "support/forked.hpp"
#include "support/open_descriptors.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

child start(process_group& group, const scene& s, const std::string& words) {
  child c = group.spawn(s.words(support::split(words)), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  return c;
}

}  // namespace

TEST_CASE("a nested group ends alone, and leaves the outer one as it is") {
  const scene s;
  process_group outer({.grace = 200ms});
  child first = start(outer, s, "sleep");
  {
    process_group inner = outer.nested({.grace = 200ms});
    child second = start(inner, s, "daemon ignore sleep");
    CHECK(inner.members().size() == 1);
    CHECK(outer.members().size() == 2);
    CHECK(inner.terminate().proven_empty);
    CHECK(inner.members().empty());
    start(inner, s, "setsid ignore sleep");
  }
  CHECK(outer.members().size() == 1);
  CHECK(wait_until([&] { return support::children_of(outer.warden().pid).size() == 1; }));  // its warden is gone
  CHECK_FALSE(first.wait_for(0ms));
}

TEST_CASE("the outer group's end is the end of all groups in it") {
  const scene s;
  process_group outer({.grace = 200ms});
  process_group inner = outer.nested({.grace = 10s});
  process_group innermost = inner.nested({.grace = 10s});
  child a = start(outer, s, "sleep");
  child b = start(inner, s, "ignore sleep");
  child c = start(innermost, s, "daemon setsid ignore sleep");
  const termination_report report = outer.terminate();
  CHECK(report.proven_empty);
  CHECK(s.empty());
  CHECK(inner.warden_alive());
  CHECK(innermost.warden_alive());
  start(innermost, s, "sleep");  // and all can be used again
  CHECK(outer.terminate().proven_empty);
  CHECK(s.empty());
}

TEST_CASE("groups may be destroyed in any order") {
  const scene s;
  const int before = support::open_descriptors();
  for (int order = 0; order < 2; ++order) {
    process_group outer({.grace = 100ms});
    process_group inner = outer.nested({.grace = 100ms});
    process_group innermost = inner.nested({.grace = 100ms});
    start(outer, s, "ignore sleep");
    start(innermost, s, "ignore sleep");
    if (order == 0) {
      outer = process_group(nullptr);
      CHECK(s.empty());
      std::error_code ec;
      CHECK_FALSE(innermost.spawn({"true"}, ec));
      CHECK(ec == errc::warden_lost);
    } else {
      innermost = process_group(nullptr);
      inner = process_group(nullptr);
      CHECK(support::processes_with(s.helper()).size() == 1);
    }
  }
  CHECK(s.empty());
  CHECK(support::open_descriptors() == before);
  CHECK(support::children_of(::getpid()).empty());
}

TEST_CASE("a killed or stopped nested warden does not hold up the end of the outer group") {
  const scene s;
  for (const int number : {SIGKILL, SIGSTOP}) {
    process_group outer({.grace = 100ms});
    process_group inner = outer.nested({.grace = 100ms});
    child c = start(inner, s, "daemon ignore sleep");
    const pid_t warden = inner.warden().pid;
    CHECK(inner.warden_alive());
    ::kill(warden, number);
    CHECK(wait_until([&] { return !inner.warden_alive(); }));
    CHECK(outer.terminate().proven_empty);
    CHECK(s.empty());
  }
}

TEST_CASE("the owner's death ends nested groups as well") {
  const scene s;
  forked owner([&](teller test) {
    process_group outer({.grace = 100ms});
    process_group inner = outer.nested({.grace = 100ms});
    process_group innermost = inner.nested({.grace = 100ms});
    child a = start(outer, s, "ignore sleep");
    child b = start(inner, s, "daemon ignore sleep");
    child c = start(innermost, s, "setsid ignore sleep");
    test.say(std::to_string(outer.warden().pid));
    for (;;) ::pause();
    return 0;
  });
  const auto warden = owner.line();
  REQUIRE(warden);
  owner.signal(SIGKILL);
  CHECK(wait_until([&] { return s.empty(); }));
  CHECK(wait_until([&] { return !support::alive(std::atoi(warden->c_str())); }));
}

TEST_CASE("the group is idle when everything in it has ended, wardens of empty groups aside") {
  const scene s;
  process_group outer;
  CHECK(outer.wait_idle(10s));
  process_group inner = outer.nested();
  CHECK(outer.wait_idle(10s));
  child a = outer.spawn(s.words({"leave", "delay=100", "exit=0"}));
  CHECK_FALSE(outer.wait_idle(0ms));
  CHECK(a.wait().success());
  CHECK(outer.wait_idle(10s));
  CHECK(outer.wait_idle(0ms));
  CHECK(s.empty());
  child b = inner.spawn(s.words({"daemon", "delay=100", "exit=0"}));
  CHECK_FALSE(outer.wait_idle(1ms));
  CHECK(outer.wait_idle(10s));
  CHECK(inner.wait_idle(10s));
  CHECK(s.empty());
  child c = outer.spawn(s.words({"sleep"}));
  CHECK_FALSE(outer.wait_idle(50ms));
}

TEST_CASE("a warden that takes long to start another is waited for: the machine may be busy") {
  process_group outer;
  const pid_t warden = outer.warden().pid;
  // Held as by a debugger: it is neither dead nor stopped, it only does nothing.
  if (::ptrace(PTRACE_SEIZE, warden, nullptr, nullptr) != 0) {
    MESSAGE("skipped: no ptrace here");
    return;
  }
  ::ptrace(PTRACE_INTERRUPT, warden, nullptr, nullptr);
  int status = 0;
  REQUIRE(::waitpid(warden, &status, __WALL) == warden);
  std::error_code ec;
  std::atomic<bool> answered = false;
  std::thread other([&] {
    process_group inner = outer.nested({}, ec);
    if (!ec) inner.terminate();
    answered = true;
  });
  CHECK_FALSE(wait_until([&] { return answered.load(); }, 600ms));
  ::ptrace(PTRACE_DETACH, warden, nullptr, nullptr);
  other.join();
  CHECK(!ec);
}
