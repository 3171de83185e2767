// child::signal reaches the child's process group, and never anybody else's.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <thread>

#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::scene;
using support::wait_until;

TEST_CASE("a signal reaches the child and what it started, unless that left") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"fork", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  child other = group.spawn(s.words({"setsid", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(other.out()) > 0);
  CHECK(group.members().size() == 4);
  c.signal(SIGTERM);
  CHECK(c.wait().signal() == SIGTERM);
  CHECK(wait_until([&] { return group.members().size() == 2; }));
  other.signal(SIGTERM);
  CHECK(other.wait().signal() == SIGTERM);
  CHECK(wait_until([&] { return group.members().size() == 1; }));
}

TEST_CASE("after its end nobody is signalled, although members of its process group live on") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"leave", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  CHECK(c.wait().success());
  child other = group.spawn(s.words({"sleep"}));
  std::error_code ec;
  c.signal(SIGKILL, ec);
  CHECK(ec == std::errc::no_such_process);
  CHECK(group.members().size() == 2);
  CHECK_FALSE(other.wait_for(0ms));
  c.signal(99, ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("a wrong signal, and a handle of nothing, are errors") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"sleep"}));
  std::error_code ec;
  c.signal(99, ec);
  CHECK(ec == std::errc::invalid_argument);
  c.signal(-1, ec);
  CHECK(ec == std::errc::invalid_argument);
  c.signal(0, ec);
  CHECK_FALSE(ec);
  child none;
  none.signal(SIGTERM, ec);
  CHECK(ec == std::errc::invalid_argument);
  none.wait(ec);
  CHECK(ec == std::errc::invalid_argument);
  child moved = std::move(c);
  c.signal(SIGKILL, ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK_FALSE(moved.wait_for(1ms));
  process_group nothing(nullptr);
  CHECK_FALSE(nothing.spawn({"true"}, ec));
  CHECK(ec == std::errc::invalid_argument);
}

TEST_CASE("no group, and no cleanup, is what nullptr asks for; empty braces are options") {
  process_group group{{}};
  CHECK(group);
  CHECK(group.nested({}));
  CHECK_FALSE(process_group(nullptr));
  signal_cleanup cleanup{{}};
  CHECK(cleanup);
  CHECK_FALSE(signal_cleanup(nullptr));
}

TEST_CASE("a group that could not ask its children to stop does not start") {
  process_group outer;
  for (const int number : {0, -1, 99}) {
    CAPTURE(number);
    std::error_code ec;
    CHECK_FALSE(process_group({.stop_signal = number}, ec));
    CHECK(ec == std::errc::invalid_argument);
    CHECK_FALSE(outer.nested({.stop_signal = number}, ec));
    CHECK(ec == std::errc::invalid_argument);
    for (const reach ends : {reach::strays, reach::everything}) {
      const single_instance guard = single_instance::acquire(support::unique_name("stop"),
                                                             {.children = {.stop_signal = number}, .ends = ends}, ec);
      CHECK_FALSE(guard);
      CHECK(ec == std::errc::invalid_argument);
      CHECK(guard.explanation() == "children.stop_signal " + std::to_string(number) + ": " + ec.message());
    }
  }
  CHECK(process_group({.stop_signal = SIGRTMAX}));
}

TEST_CASE("a handle that is dropped or outlives its group does no harm") {
  const scene s;
  child kept;
  {
    process_group group;
    for (int i = 0; i < 50; ++i) (void)group.spawn(s.words({"exit=0"}));
    CHECK(group.wait_idle(20s));
    kept = group.spawn(s.words({"sleep"}));
  }
  CHECK(kept.wait().signal() == SIGTERM);
  std::error_code ec;
  kept.signal(SIGTERM, ec);
  CHECK(ec == std::errc::no_such_process);
  process_group next;
  kept.signal(SIGTERM, ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("while the group is being ended nothing new starts") {
  const scene s;
  process_group group({.grace = 1s});
  child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  std::error_code during;
  std::thread other([&] { group.terminate(); });
  CHECK(wait_until([&] {
    child late = group.spawn({"/bin/true"}, during);
    return during == std::errc::operation_canceled;
  }));
  other.join();
  CHECK(group.spawn({"/bin/true"}).wait().success());
}

TEST_CASE("two threads may end a group at once, and the shorter grace counts") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  const auto start = std::chrono::steady_clock::now();
  std::thread other([&] { CHECK(group.terminate(60s).proven_empty); });
  CHECK(group.terminate(100ms).proven_empty);
  other.join();
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}
