// Who dies with the owner, and who must not: strays against innocents.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
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

/// A tmux server that was there before, with a pane; where there is no tmux, nothing.
class panes {
 public:
  explicit panes(const scene& place) : place_(place) {
    if (!installed()) {
      MESSAGE("without tmux, which is not installed");
      return;
    }
    REQUIRE(ask({"new-session", "-d", pane()}));
    REQUIRE(wait_until([&] { return pids().size() == 2; }));
  }
  static bool installed() { return ::access("/usr/bin/tmux", X_OK) == 0; }

  /// What opens a pane in it, in the environment of whoever does; a shell's words.
  std::string open_in_own_environment() const {
    return "exec tmux -S " + socket() + " new-window -d -e " + mark + "=\"$" + mark + "\" '" + pane() + "'";
  }
  /// The server, and what runs in its panes.
  std::vector<pid_t> pids() const {
    std::vector<pid_t> result;
    std::string text;
    if (!installed() || !ask({"list-panes", "-a", "-F", "#{pid} #{pane_pid}"}, &text)) return result;
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != text.npos; at = end + 1) {
      const std::string line = text.substr(at, end - at);
      if (result.empty()) result.push_back(std::atoi(line.c_str()));
      result.push_back(std::atoi(line.c_str() + line.find(' ')));
    }
    return result;
  }

 private:
  static constexpr const char* mark = "INSTANCE_GUARD_MARK";
  std::string socket() const { return place_ / "tmux"; }
  std::string pane() const { return "exec " + place_.helper() + " sleep"; }
  bool ask(std::vector<std::string> words, std::string* answer = nullptr) const {
    words.insert(words.begin(), {"tmux", "-S", socket(), "-f", "/dev/null"});
    program client = place_.start(words, {.environment = {"TMUX=", "TERM=xterm"}});
    const std::string said = client.read_all();
    if (answer != nullptr) *answer = said;
    const auto status = client.wait();
    return status && status->code() == 0;
  }

  const scene& place_;
};

const std::vector<std::string> every_stray = {
    "stray.system=sleep",        "stray.setsid=sleep",       "stray.popen=sleep",
    "stray.spawn=sleep",         "stray.spawn=daemon sleep", "stray.spawn=setsid ignore sleep",
    "stray.popen=daemon3 sleep", "stray.spawn=stopped",      "stray.spawn=daemon undying renamed closed sleep"};

}  // namespace

TEST_CASE("what the program started by itself ends with it") {
  for (const std::string end : {"return", "_exit", "term", "kill", "abort"}) {
    CAPTURE(end);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("strays");
    owner_options options{.arguments = {"grace=150", "reach=strays", "guard=" + name}, .ready = every_stray.size() + 1};
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
      owner o(s, {.arguments = {"grace=150", "reach=" + reach, "guard=" + name, "child=sleep", "child=daemon sleep",
                                "broker=" + bystanders.fifo, "wait-line=", "end=" + end},
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
      owner o(s,
              {.arguments = {"grace=150", "reach=strays", "guard=" + name, "child=sleep", "wait-line=", "end=" + end},
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
    owner o(s, {.arguments = {"grace=150", "reach=strays", "guard=" + name, "outlives=" + stays, "child=sleep",
                              "keep=daemon spin", "wait-line=", "end=" + end},
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

TEST_CASE("every signal that is sent goes to a descendant of the owner, and to none that is to stay") {
  if (!have_strace()) return;
  for (const std::string end : {"return", "term", "kill"}) {
    CAPTURE(end);
    innocents bystanders;
    const panes open(bystanders.place);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const pid_t group = bystanders.neighbour_pid;
    owner_options options{.arguments = {"grace=150", "reach=strays", "guard=" + unique_name("signals"),
                                        "warden=", "outlives=daemon slow-term=0", "keep=daemon witness=" + s / "w",
                                        "child=setsid ignore sleep", "child=daemon sleep"},
                          .ready = 4 + every_stray.size(),
                          .before = with_signal_log(s / "log", {}),
                          .before_exec = [group] { return ::setpgid(0, group) == 0; }};
    options.arguments.insert(options.arguments.end(), every_stray.begin(), every_stray.end());
    if (panes::installed()) options.arguments.push_back("shell=" + open.open_in_own_environment());
    options.arguments.insert(options.arguments.end(), {"broker=" + bystanders.fifo, "wait-line=", "end=" + end});
    owner o(s, options);
    REQUIRE(o.complete());
    bystanders.expect_service();  // the last thing that it asks for

    std::vector<pid_t> staying = open.pids();
    if (panes::installed()) CHECK(staying.size() == 3);
    staying.insert(staying.end(), {bystanders.stranger.pid(), bystanders.neighbour_pid, bystanders.broker_pid,
                                   bystanders.service_pid, o.ready("slow-term"), o.ready("witness")});
    std::vector<pid_t> groups;
    for (const pid_t each : staying) groups.push_back(::getpgid(each));

    const pid_t warden = o.warden();
    REQUIRE(alive(warden));
    o.go_on();
    REQUIRE(wait_until([&] { return !alive(warden); }));
    for (const pid_t each : staying) {
      CAPTURE(each);
      CHECK(each > 0);
      CHECK(alive(each));
    }
    for (const char* kept : {"slow-term", "witness"})
      if (const pid_t pid = o.ready(kept)) ::kill(pid, SIGKILL);
    REQUIRE(o.process().wait());  // strace ends with the last process that it follows
    const signal_log log = read_signal_log(s / "log");
    CHECK(log.sent.size() >= o.ready().size() - 2);
    for (const sent_signal& each : log.sent) {
      CAPTURE(each.from);
      CAPTURE(each.to);
      CAPTURE(each.name);
      CHECK(each.to != 0);
      CHECK(each.to != -1);
      CHECK(log.is_own(each.to < 0 ? -each.to : each.to));
      for (const pid_t stays : staying) CHECK(each.to != stays);
      for (const pid_t stays : groups) CHECK(each.to != -stays);
    }
    bystanders.check_alive();
    bystanders.end();
    CHECK(s.empty());
  }
}
