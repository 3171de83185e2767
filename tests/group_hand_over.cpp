// A successor takes over the groups of its parent, which then ends: daemonize().
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/detail/group_hand_over.hpp>
#include <instance_guard/process_group.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

TEST_CASE("the successor has the group with its children, and its death ends them") {
  const scene s;
  for (const bool clean : {true, false}) {
    CAPTURE(clean);
    forked first([&](teller test) {
      process_group group({.grace = 200ms});
      process_group below = group.nested({.grace = 200ms});
      child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
      child d = below.spawn(s.words({"daemon", "sleep"}), {.out = stdio::pipe()});
      if (support::await_ready(c.out()) == 0 || support::await_ready(d.out()) == 0) return 1;
      int told[2];
      if (::pipe(told) != 0) return 2;
      detail::group_hand_over_begin();
      const pid_t before = ::getpid();
      const pid_t successor = ::fork();
      if (successor == 0) {
        char byte = 0;
        if (::read(told[0], &byte, 1) != 1) ::_exit(1);
        detail::group_take_over();
        while (::getppid() == before) ::usleep(1000);  // until the first process has ended
        if (!group.warden_alive() || !below.warden_alive()) test.say("no warden");
        if (c.wait_for(100ms)) test.say("a child has ended");
        if (group.members().size() != 2) test.say("members");
        if (!group.spawn({"/bin/true"}).wait().success()) test.say("no new child");
        if (!below.spawn({"/bin/true"}).wait().success()) test.say("no new child below");
        test.say("pid " + std::to_string(::getpid()));
        if (!clean)
          for (;;) ::pause();
        below = process_group(nullptr);
        group = process_group(nullptr);
        test.say(s.empty() ? "empty" : "not empty");
        ::_exit(0);
      }
      if (detail::group_hand_over_to(successor) != 0) test.say("refused");
      if (group.warden_alive()) test.say("still has the group");
      if (::write(told[1], "x", 1) != 1) return 3;
      return 0;
    });
    const std::string line = first.line().value_or("nothing");
    REQUIRE(line.starts_with("pid "));
    CHECK(first.wait().success());
    if (clean) CHECK(first.line() == "empty");
    else ::kill(std::atoi(line.c_str() + 4), SIGKILL);
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("a hand-over that is called off changes nothing") {
  process_group group;
  detail::group_hand_over_begin();
  CHECK(detail::group_hand_over_to(0) == 0);
  CHECK(group.spawn({"/bin/true"}).wait().success());
  CHECK(detail::group_hand_over_to(1'999'999'999) != 0);
  CHECK(group.spawn({"/bin/true"}).wait().success());
}
