// However the owner ends, and whatever its children do against it: nothing is left.
//
// One owner has a child of every kind at once; the matrix is this list times the ways to end.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include "support/owner.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

struct ending {
  const char* how;
  int code;  // of the owner, -1: ended by a signal
  int signal;
};

constexpr ending endings[] = {{"return", 21, 0},      {"exit", 22, 0},       {"_exit", 23, 0},
                              {"quick_exit", 24, 0},  {"exec", 25, 0},       {"abort", -1, SIGABRT},
                              {"throw", -1, SIGABRT}, {"segv", -1, SIGSEGV}, {"terminate", -1, SIGABRT},
                              {"term", -1, SIGTERM},  {"int", -1, SIGINT},   {"hup", -1, SIGHUP},
                              {"quit", -1, SIGQUIT},  {"kill", -1, SIGKILL}};

/// What is wanted of one owner.
struct wanted {
  ending end;
  std::string reach = {};  // empty: a bare process_group, without a name
  bool as_nobody = false;
  std::vector<std::string> children = stubborn_children();
  std::vector<std::string> copies = {};        // forked, and never executed
  std::vector<std::string> ways = {"child="};  // how they are started, one after the other ...
  std::size_t first = 0;                       // ... from this one on
};

void check_nothing_is_left(const wanted& w) {
  CAPTURE(std::string(w.end.how));
  CAPTURE(w.reach);
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tree");
  const std::size_t count = w.children.size() + w.copies.size();
  owner_options options{.ready = count, .as_nobody = w.as_nobody};
  options.arguments = {"grace=150"};
  if (w.reach.empty()) options.arguments.push_back("group=");
  else options.arguments.insert(options.arguments.end(), {"reach=" + w.reach, "guard=" + name});
  for (std::size_t i = 0; i < w.children.size(); ++i)
    options.arguments.push_back(w.ways[(i + w.first) % w.ways.size()] + w.children[i]);
  for (const std::string& each : w.copies) options.arguments.push_back("stray.fork=" + each);
  options.arguments.push_back("wait-line=");
  options.arguments.push_back(std::string("end=") + w.end.how);

  owner o(s, options);
  REQUIRE(o.complete());
  CHECK(s.processes().size() >= count + 1);
  o.go_on();

  const auto status = o.process().wait();
  REQUIRE(status);
  CHECK(status->code() == w.end.code);
  CHECK(status->signal() == w.end.signal);
  // What was started is then the warden of everything: its end is the end of all of them.
  if (w.reach == "everything")
    for (const found_process& each : s.processes()) FAIL_CHECK("outlived its warden: " << each.what);

  if (!w.reach.empty()) CHECK(next_instance_is_alone(s, name, w.as_nobody));
  CHECK(wait_until([&] { return s.empty(); }));
}

}  // namespace

TEST_CASE("a group's children end with it, in every way it can end") {
  for (const ending& each : endings) check_nothing_is_left({.end = each});
}

TEST_CASE("a guard's children are gone before the next instance has the name") {
  for (const ending& each : endings) check_nothing_is_left({.end = each, .reach = "spawned"});
}

TEST_CASE("the same for an ordinary user") {
  if (!is_root()) return;
  for (const ending& each : endings) check_nothing_is_left({.end = each, .reach = "strays", .as_nobody = true});
}

TEST_CASE("a child that writes into whatever descriptor it has harms nobody") {
  check_nothing_is_left({.end = endings[0], .reach = "spawned", .children = {"flood", "sleep"}});
}

TEST_CASE("with reach::everything it does not matter who started a child, and how") {
  const std::vector<std::string> ways = {
      "stray.spawn=", "stray.system=", "stray.popen=", "stray.fork-exec=", "stray.setsid=", "child="};
  std::size_t shift = 0;
  for (const ending& each : endings) {
    // In full: each kind of child, in each way, for each end. Else the ways take turns.
    for (int round = 0; round < rounds(6, 1); ++round)
      check_nothing_is_left({.end = each,
                             .reach = "everything",
                             .copies = {"", "setsid ignore", "daemon ignore", "daemon3", "stopped"},
                             .ways = ways,
                             .first = shift + static_cast<std::size_t>(round)});
    ++shift;
  }
}

TEST_CASE("a wide and a deep tree end like a small one") {
  check_nothing_is_left({.end = endings[0], .children = {"chain=100 sleep", "setsid chain=50 sleep"}});
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::vector<std::string> wide = {"grace=100", "group=", "child=fan=300 sleep", "wait-line=", "end=kill"};
  owner o(s, {.arguments = wide, .ready = 300});
  CHECK(o.complete());
  o.go_on();
  CHECK(o.process().wait()->signal() == SIGKILL);
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("a fork bomb does not outrun its end") {
  check_nothing_is_left({.end = {"kill", -1, SIGKILL}, .children = {"bomb=300", "runner=4"}});
}

TEST_CASE("children end when their owner dies before all of them are started") {
  for (int round = 0; round < 20; ++round) {
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner_options options{.arguments = {"grace=50", "group="}, .ready = 1};
    for (int i = 0; i < 40; ++i) options.arguments.push_back("child=setsid sleep");
    options.arguments.push_back("pause=");
    owner o(s, options);
    o.process().signal(SIGKILL);
    o.process().wait();
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("control: without a guard the children stay") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  owner o(s, {.arguments = {"stray.spawn=setsid sleep", "stray.spawn=daemon sleep", "stray.spawn=ignore sleep",
                            "wait-line=", "end=kill"},
              .ready = 3});
  REQUIRE(o.complete());
  o.go_on();
  CHECK(o.process().wait()->signal() == SIGKILL);
  CHECK(helpers_of(s).size() >= 3);
  s.end();
}
