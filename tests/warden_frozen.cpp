// A warden holds its delegated control group still while it looks who may be ended. Killed in between, it leaves the
// group frozen: nobody in it could end by itself, or go on.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/syscall.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <instance_guard/process_group.hpp>
#include <string>
#include <vector>

#include "support/delegated.hpp"
#include "support/forked.hpp"
#include "support/owner.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/stepped_process.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace support;
using namespace std::chrono_literals;

namespace {

/// Where the warden is killed: it writes "still", "kill" and "go on".
struct point {
  const char* what;
  int write;
  bool made;  // the write: it is killed after it, not before
};

constexpr point while_still[] = {
    {"once they are told to be still", 1, true},
    {"before the kernel is asked to end them", 2, false},
    {"before they are told to go on", 3, false},
};

std::string first_line(const std::string& file) {
  std::string line;
  std::ifstream(file) >> line;
  return line;
}

struct setting {
  delegated place{unique_name("frozen")};
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string name = unique_name("frozen");

  /// An owner is killed, then its warden, there. The directory of the group.
  std::string kill_both(const std::vector<std::string>& children, const point& where) {
    // Without a grace it looks for nobody before: each call of the warden is a stop here.
    owner_options options{.arguments = {"grace=0", "guard=" + name, "warden="}, .ready = children.size()};
    options.arguments.insert(options.arguments.end(), children.begin(), children.end());
    options.arguments.push_back("pause=");
    options.before_exec = [&] { return place.group.enter(); };
    owner first(s, options);
    REQUIRE(first.complete());
    REQUIRE(place.group.below().size() == 1);
    const std::string group = place.group.below()[0];
    stepped_process warden(first.warden());
    REQUIRE(warden.possible());
    first.process().signal(SIGKILL);
    for (int i = 0; i < where.write; ++i) REQUIRE(warden.run_to(SYS_write));
    if (where.made) REQUIRE(warden.finish_call());
    CHECK(first_line(group + "/cgroup.freeze") == "1");
    warden.kill();
    CHECK(first_line(group + "/cgroup.freeze") == "1");
    return group;
  }
};

}  // namespace

TEST_CASE("owner and warden killed while all are held still: the next start ends them, and their group") {
  for (const point& where : while_still) {
    const std::string when = where.what;
    CAPTURE(when);
    setting t;
    if (!t.place.works) return;
    t.kill_both(
        {"child=daemon undying ignore renamed cleared closed sleep", "child=undying ignore sleep", "child=sleep"},
        where);
    CHECK(next_instance_is_alone(t.s, t.name));
    CHECK(wait_until([&] { return t.s.empty(); }));
    CHECK(t.place.nothing_below());
  }
}

TEST_CASE("... and who is to be kept among them goes on, beside the others' end") {
  setting t;
  if (!t.place.works) return;
  const std::string keep = "child=exec /usr/bin/env INSTANCE_GUARD_KEEP=1 " + t.s.helper() + " daemon undying sleep";
  const std::string group = t.kill_both({keep, "child=daemon undying ignore sleep"}, while_still[0]);
  owner next(t.s, {.arguments = {"guard=" + t.name, "wait-line=", "end=return"}});
  CHECK(next.process().read_until("acquired"));
  const auto kept = helpers_of(t.s);
  CHECK(kept.size() == 1);
  CHECK(first_line(group + "/cgroup.freeze") == "0");
  next.go_on();
  CHECK(next.process().wait());
  CHECK(helpers_of(t.s).size() == 1);
  t.s.end();
}

TEST_CASE("a warden killed alone while it holds them still: whoever makes a group there next lets them go on") {
  const delegated place(unique_name("frozen"));
  if (!place.works) return;
  const scene s;
  forked part([&](teller test) {
    if (!place.group.enter()) return 1;
    process_group group({.grace = 0ms});
    child one = group.spawn(s.words({"undying", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (await_ready(one.out()) == 0) return 6;
    test.say(std::to_string(group.warden().pid));
    if (!wait_until([&] { return std::filesystem::exists(s / "go"); })) return 2;
    std::error_code ec;
    group.terminate(ec);
    if (ec != errc::warden_lost) return 3;
    test.say("lost");
    if (!wait_until([&] { return std::filesystem::exists(s / "next"); })) return 4;
    process_group next({.grace = 50ms});
    return next.spawn({"/bin/true"}).wait().success() ? 0 : 5;
  });
  stepped_process warden(ready_pid(part.line().value_or(""), ""));
  REQUIRE(warden.possible());
  REQUIRE(place.group.below().size() == 1);
  const std::string frozen = place.group.below()[0] + "/cgroup.freeze";
  std::ofstream(s / "go").flush();
  REQUIRE(warden.run_to(SYS_write));
  REQUIRE(warden.finish_call());
  warden.kill();
  CHECK(part.line() == "lost");
  CHECK(first_line(frozen) == "1");
  std::ofstream(s / "next").flush();
  CHECK(part.wait().success());
  CHECK(first_line(frozen) == "0");
  s.end();
}
