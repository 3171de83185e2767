// What the other tests rely on: fixtures that end by themselves, and a census that finds them.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "support/deny_system_calls.hpp"
#include "support/open_descriptors.hpp"
#include "support/other_user.hpp"
#include "support/scene.hpp"
#include "support/signal_log.hpp"
#include "support/unique_name.hpp"

using namespace support;
using std::chrono::milliseconds;

namespace {
using words = std::vector<std::string>;
}

TEST_CASE("every fixture ends by itself, however it resists") {
  scene s;
  const std::vector<words> kinds = {{"ignore", "block", "sleep"},
                                    {"ignore", "stopped"},
                                    {"daemon", "cleared", "sleep"},
                                    {"daemon", "scrubbed", "closed", "renamed", "sleep"},
                                    {"headless", "ignore", "sleep"},
                                    {"subreaper", "daemon", "ignore", "sleep"},
                                    {"chain=20", "ignore", "sleep"},
                                    {"fan=20", "handle", "sleep"},
                                    {"runner=2"},
                                    {"hydra=20"},
                                    {"bomb=50"},
                                    {"spin"}};
  std::vector<program> running;
  for (words kind : kinds) {
    kind.insert(kind.begin(), "cap=1");
    running.push_back(s.start(s.words(std::move(kind))));
  }
  for (program& each : running) CHECK(each.read_until("ready"));
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("the census finds a process that hid its environment, its name and its first thread") {
  scene s;
  for (const words& kind :
       {words{"sleep"}, words{"daemon", "cleared", "closed", "sleep"}, words{"scrubbed", "closed", "sleep"},
        words{"renamed", "undumpable", "sleep"}, words{"cleared", "renamed", "headless", "sleep"}, words{"stopped"}}) {
    CAPTURE(kind.back());
    program p = s.start(s.words(kind));
    REQUIRE(p.read_until("ready"));
    CHECK(s.processes().size() == 1);
    s.end();
    CHECK(s.empty());
  }
}

TEST_CASE("a zombie is not alive, a process without its first thread is") {
  scene s;
  program zombie = s.start(s.words({"exit=0"}));
  CHECK(wait_until([&] { return s.empty(); }));
  CHECK(wait_until([&] { return !alive(zombie.pid()); }));  // its memory goes first
  program headless = s.start(s.words({"headless", "sleep"}));
  REQUIRE(headless.read_until("ready"));
  CHECK(alive(headless.pid()));
}

TEST_CASE("a program's end comes through as it was") {
  scene s;
  CHECK(s.start(s.words({"exit=7"})).wait()->str() == "exit code 7");
  CHECK(s.start(s.words({"signal=15"})).wait()->str() == "ended by SIGTERM");
  CHECK(s.start({"/no/such/program"}).wait()->code() == 127);
  CHECK(s.start(s.words({"exit=0"}), {.before_exec = [] { return false; }}).wait()->code() == 77);
}

TEST_CASE("a system call can be refused to a program alone") {
  scene s;
  const auto refuse = [] { return deny_system_calls({SYS_timer_create}, ENOSYS); };
  program p = s.start(s.words({"sleep"}), {.before_exec = refuse, .merge_err = true});
  CHECK(p.wait()->code() == 71);
  CHECK(p.read_all().find("Function not implemented") != std::string::npos);
  CHECK(s.start(s.words({"exit=0"})).wait()->success());
}

TEST_CASE("a program can run as another user") {
  if (!is_root()) return;
  scene s;
  program p = s.start(s.words({"show"}), {.before_exec = [] { return become(nobody); }});
  CHECK(p.read_until("status.Uid=65534"));
  CHECK(p.wait()->success());
}

TEST_CASE("the signal log names sender, receiver and signal") {
  if (!have_strace()) return;
  scene s;
  program p = s.start(with_signal_log(s / "log", s.words({"signal=1"})));
  CHECK(p.wait()->signal() == SIGHUP);
  const signal_log log = read_signal_log(s / "log");
  REQUIRE(log.sent.size() == 1);
  CHECK(log.sent[0].name == "SIGHUP");
  CHECK(log.sent[0].from == log.sent[0].to);
  CHECK(log.own == std::vector<pid_t>{log.sent[0].to});
}

TEST_CASE("programs that come and go leave no descriptor behind") {
  const int before = open_descriptors();
  {
    scene s;
    for (int i = 0; i < 10; ++i) CHECK(s.start(s.words({"exit=0"})).wait());
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("names are unique") { CHECK(unique_name("a") != unique_name("a")); }
