// Who dies with the owner, and who must not: strays against innocents.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <sys/stat.h>
#include <vector>

#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/signal_log.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// Those that share something with the owner and must survive it.
struct innocents {
  innocents() {
    // "bot | tee log": one process group and session for both.
    neighbour_pid = expect_ready(neighbour);
    broker_pid = expect_ready(broker);
  }
  static pid_t expect_ready(program& p) {
    const auto line = p.read_until("ready");
    REQUIRE(line);
    return ready_pid(*line);
  }
  static std::string make_fifo(const std::string& path) {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    return path;
  }
  static bool lead_group() { return ::setpgid(0, 0) == 0; }

  canary stranger;
  scene place;
  std::string fifo = make_fifo(place / "fifo");
  program neighbour = place.start(place.words({"sleep"}), {.before_exec = lead_group});
  program broker = place.start(place.words({"broker=" + fifo, "sleep"}));
  pid_t neighbour_pid = 0;
  pid_t broker_pid = 0;
  pid_t service_pid = 0;  // started by the broker, in the owner's environment

  void expect_service() { service_pid = expect_ready(broker); }
  void check_alive() {
    CHECK(stranger.alive());
    CHECK(alive(neighbour_pid));
    CHECK(alive(broker_pid));
    if (service_pid != 0) CHECK(alive(service_pid));
  }
  /// The service has its client's environment, and would count as left behind there.
  ~innocents() { end(); }
  void end() const { place.end(); }
};

const std::vector<std::string> every_stray = {
    "stray.system=sleep",       "stray.setsid=sleep",
    "stray.popen=sleep",        "stray.spawn=sleep",
    "stray.spawn=daemon sleep", "stray.spawn=setsid ignore sleep",
    "stray.spawn=stopped",      "stray.spawn=daemon undying renamed closed sleep"};

}  // namespace

TEST_CASE("what the program started by itself ends with it") {
  for (const std::string end : {"return", "_exit", "term", "kill", "abort"}) {
    CAPTURE(end);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("strays");
    owner_options options{.arguments = {"grace=150", "reach=strays", "guard=" + name},
                          .ready = every_stray.size() + 1};
    options.arguments.insert(options.arguments.end(), every_stray.begin(), every_stray.end());
    options.arguments.insert(options.arguments.end(), {"stray.fork=", "wait-line=", "end=" + end});
    owner o(s, options);
    REQUIRE(o.complete());
    o.go_on();
    REQUIRE(o.process().wait());
    CHECK(next_instance_is_alone(s, name));
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("innocents survive: group neighbour, stranger, broker and what it starts") {
  for (const std::string reach : {"spawned", "strays", "everything"})
    for (const std::string end : {"return", "term", "kill"}) {
      CAPTURE(reach);
      CAPTURE(end);
      innocents bystanders;
      scene s({INSTANCE_GUARD_TEST_OWNER});
      const std::string name = unique_name("innocent");
      const pid_t group = bystanders.neighbour_pid;
      owner o(s, {.arguments = {"grace=150", "reach=" + reach, "guard=" + name, "child=sleep",
                                "child=daemon sleep", "broker=" + bystanders.fifo,
                                "wait-line=", "end=" + end},
                  .ready = 2,
                  .before_exec = [group] { return ::setpgid(0, group) == 0; }});
      REQUIRE(o.complete());
      bystanders.expect_service();
      o.go_on();
      REQUIRE(o.process().wait());
      owner next(s, {.arguments = {"wait=20000", "guard=" + name, "end=return"}});
      CHECK(next.process().wait()->code() == 21);
      bystanders.check_alive();
      bystanders.end();
    }
}

TEST_CASE("a service that the same entry script started survives, as sibling or as child") {
  for (const std::string glue : {" sleep & exec \"$@\"", " sleep & \"$@\"; exit $?"})
    for (const std::string end : {"return", "kill"}) {
      CAPTURE(glue);
      CAPTURE(end);
      scene place;
      scene s({INSTANCE_GUARD_TEST_OWNER});
      const std::string name = unique_name("entry");
      const std::string service = "INSTANCE_GUARD_TEST= " + place.helper();
      owner o(s, {.arguments = {"grace=150", "reach=strays", "guard=" + name, "child=sleep",
                                "wait-line=", "end=" + end},
                  .ready = 2,
                  .before = {"sh", "-c", service + glue, "sh"}});
      REQUIRE(o.complete());
      o.go_on();
      REQUIRE(o.process().wait());
      owner next(s, {.arguments = {"wait=20000", "guard=" + name, "end=return"}});
      CHECK(next.process().wait()->code() == 21);
      CHECK(place.processes().size() == 1);
      place.end();
    }
}

TEST_CASE("a child that is meant to stay stays, and only that one") {
  for (const std::string end : {"return", "kill"}) {
    CAPTURE(end);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("outlives");
    const std::string stays = "daemon witness=" + s / "w";
    owner o(s, {.arguments = {"grace=150", "reach=strays", "guard=" + name, "outlives=" + stays,
                              "child=sleep", "keep=daemon spin", "wait-line=", "end=" + end},
                .ready = 3});
    REQUIRE(o.complete());
    o.go_on();
    REQUIRE(o.process().wait());
    owner next(s, {.arguments = {"wait=20000", "guard=" + name, "end=return"}});
    CHECK(next.process().wait()->code() == 21);
    CHECK(alive(o.ready("witness")));
    CHECK(alive(o.ready("spin")));
    CHECK_FALSE(alive(o.ready("sleep")));
    s.end();
  }
}

TEST_CASE("every signal that is sent goes to a descendant of the owner") {
  if (!have_strace()) return;
  for (const std::string end : {"return", "kill"}) {
    CAPTURE(end);
    innocents bystanders;
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner_options options{
        .arguments = {"grace=150", "reach=strays", "guard=" + unique_name("signals"),
                      "child=setsid ignore sleep", "child=daemon sleep"},
        .ready = 2 + every_stray.size(),
        .before = with_signal_log(s / "log", {})};
    options.arguments.insert(options.arguments.end(), every_stray.begin(), every_stray.end());
    options.arguments.insert(options.arguments.end(),
                             {"broker=" + bystanders.fifo, "wait-line=", "end=" + end});
    owner o(s, options);
    REQUIRE(o.complete());
    bystanders.expect_service();
    o.go_on();
    REQUIRE(o.process().wait());  // strace ends with the last process that it follows
    const signal_log log = read_signal_log(s / "log");
    CHECK(log.sent.size() >= o.ready().size());
    for (const sent_signal& each : log.sent) {
      CAPTURE(each.from);
      CAPTURE(each.to);
      CAPTURE(each.name);
      CHECK(each.to != 0);
      CHECK(each.to != -1);
      CHECK(log.is_own(each.to < 0 ? -each.to : each.to));
    }
    bystanders.check_alive();
    bystanders.end();
    CHECK(s.empty());
  }
}
