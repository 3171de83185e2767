// daemon(3), which forks behind the guard's back: by an owner, which loses its guard, and by what an owner started,
// which gains nothing.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// All but wardens, of which one may be about to end.
std::size_t programs_of(const scene& s) {
  std::size_t count = 0;
  for (const found_process& each : s.processes()) count += each.what.find("(instance-warden)") == std::string::npos;
  return count;
}

}  // namespace

TEST_CASE("an owner that calls daemon(3) has ended: its children go, and the name is free") {
  for (const std::string reach : {"spawned", "strays", "everything"}) {
    CAPTURE(reach);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
    const std::string name = unique_name("daemon");
    const std::string directory = "directory=" + s / "locks";
    owner o(s, {.arguments = {directory, "grace=150", "reach=" + reach, "guard=" + name, "child=daemon ignore sleep",
                              "child=sleep", "wait-line=", "daemon3=", "pause="},
                .ready = 2});
    REQUIRE(o.complete());
    o.go_on();
    const auto status = o.process().wait();
    REQUIRE(status);
    CHECK(status->code() == 0);  // how daemon(3) leaves
    owner next(s, {.arguments = {directory, "wait=20000", "guard=" + name, "wait-line=", "end=return"}});
    const auto line = next.process().read_until("acquired");
    REQUIRE(line);
    CHECK(line->find(" recovered=1") != line->npos);
    for (const found_process& each : helpers_of(s)) FAIL_CHECK("overlaps: " << each.what);
    // The copy that goes on is a process like any other that the owner forked.
    const std::size_t copies = reach == "spawned" ? 1 : 0;
    CHECK(programs_of(s) == 1 + copies);
    next.go_on();
    CHECK(next.process().wait()->code() == 21);
    if (copies != 0) s.end();
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("the copy that daemon(3) leaves has no guard, is told so, and takes nothing from the next holder") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  const std::string name = unique_name("daemon");
  const std::string directory = "directory=" + s / "locks";
  owner o(s, {.arguments = {directory, "grace=150", "reach=spawned", "guard=" + name, "child=sleep",
                            "wait-line=", "daemon3=", "verify=", "try-child=sleep", "wait-line=", "end=return"},
              .ready = 1});
  REQUIRE(o.complete());
  o.go_on();
  const auto copy = o.process().read_until("daemon pid=");
  REQUIRE(copy);
  const pid_t pid = ready_pid(*copy, "daemon pid=");
  CHECK(o.process().read_line() == "verify=" + make_error_code(instance_guard::errc::lock_lost).message());
  const auto said = o.process().read_line();
  REQUIRE(said);
  CHECK(said->starts_with("no child: "));
  CHECK(o.process().wait()->code() == 0);

  owner next(s, {.arguments = {directory, "grace=150", "wait=20000", "guard=" + name, "child=ignore sleep",
                               "wait-line=", "verify=", "end=return"},
                 .ready = 1});
  REQUIRE(next.complete());
  CHECK(alive(pid));
  o.go_on();  // it returns from main, with all its destructors
  CHECK(wait_until([&] { return !alive(pid); }));
  CHECK(std::filesystem::exists(s / "locks" + "/" + name + ".lock"));
  CHECK(helpers_of(s).size() == 1);
  next.go_on();
  CHECK(next.process().read_until("verify=") == "verify=fine");
  CHECK(next.process().wait()->code() == 21);
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("what a child, a stray or a forked copy becomes by daemon(3) ends with the owner") {
  for (const std::string reach : {"strays", "everything"})
    for (const std::string end : {"return", "term", "kill"}) {
      CAPTURE(reach);
      CAPTURE(end);
      scene s({INSTANCE_GUARD_TEST_OWNER});
      const std::string name = unique_name("daemon");
      owner o(s, {.arguments = {"grace=150", "reach=" + reach, "guard=" + name, "child=daemon3 sleep",
                                "child=daemon3 ignore sleep", "stray.popen=daemon3 sleep", "stray.system=daemon3 sleep",
                                "stray.spawn=daemon3 ignore sleep", "stray.fork=daemon3", "stray.fork=daemon3 ignore",
                                "wait-line=", "end=" + end},
                  .ready = 7});
      REQUIRE(o.complete());
      CHECK(programs_of(s) >= 8);
      o.go_on();
      REQUIRE(o.process().wait());
      owner next(s, {.arguments = {"wait=20000", "guard=" + name, "wait-line=", "end=return"}});
      REQUIRE(next.process().read_until("acquired"));
      CHECK(programs_of(s) == 1);
      next.go_on();
      CHECK(next.process().wait()->code() == 21);
      CHECK(wait_until([&] { return s.empty(); }));
    }
}
