// What is meant to stay, stays; and only that.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
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

namespace {

pid_t start(process_group& group, const scene& s, const std::string& words, spawn_options options = {}) {
  options.out = stdio::pipe();
  child c = group.spawn(s.words(support::split(words)), options);
  const pid_t pid = support::await_ready(c.out());
  REQUIRE(pid > 0);
  return pid;
}

}  // namespace

TEST_CASE("a child that outlives the group is spared with what it starts, and nobody else") {
  const scene s;
  pid_t kept[4] = {}, ended = 0;
  {
    process_group group({.grace = 200ms});
    kept[0] = start(group, s, "sleep", {.outlives = true});
    kept[1] = start(group, s, "daemon sleep", {.outlives = true});
    kept[2] = start(group, s, "leave setsid sleep", {.environment = {"INSTANCE_GUARD_KEEP=1"}});
    kept[3] = start(group, s, "closed scrubbed sleep", {.outlives = true});
    ended = start(group, s, "daemon ignore sleep", {.environment = {"INSTANCE_GUARD_KEEP=0"}});
    const termination_report report = group.terminate();
    CHECK(report.proven_empty);
    CHECK(report.survivors.empty());
    for (const pid_t pid : kept) CHECK(support::alive(pid));
    CHECK_FALSE(support::alive(ended));
    CHECK(group.wait_idle(5s));
    start(group, s, "sleep");
  }
  for (const pid_t pid : kept) {
    CHECK(support::alive(pid));
    CHECK(wait_until([&] { return support::children_of(::getpid()).empty(); }));
  }
  CHECK(s.processes().size() >= 4);
  s.end();
}

TEST_CASE("it also outlives the owner that is killed, and its warden") {
  const scene s;
  for (const bool both : {false, true}) {
    forked owner([&](teller test) {
      process_group group({.grace = 100ms});
      const pid_t kept = start(group, s, "sleep", {.outlives = true});
      start(group, s, "ignore sleep");
      test.say(std::to_string(kept));
      test.say(std::to_string(group.warden().pid));
      for (;;) ::pause();
      return 0;
    });
    const pid_t kept = std::atoi(owner.line().value_or("0").c_str());
    const pid_t warden = std::atoi(owner.line().value_or("0").c_str());
    REQUIRE(warden > 0);
    if (both) ::kill(warden, SIGKILL);
    owner.signal(SIGKILL);
    CHECK(wait_until([&] { return !support::alive(warden); }));
    CHECK(wait_until([&] { return s.processes().size() == 1; }));
    CHECK(support::alive(kept));
    s.end();
  }
}

TEST_CASE("an owner that was itself to outlive a group does not pass that on") {
  const scene s;
  ::setenv("INSTANCE_GUARD_KEEP", "1", 1);
  {
    process_group group({.grace = 100ms});
    start(group, s, "daemon ignore sleep");
    CHECK(group.terminate().proven_empty);
    CHECK(s.empty());
  }
  ::unsetenv("INSTANCE_GUARD_KEEP");
}
