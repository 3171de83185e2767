// What is sent to the tool reaches the command, once.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <string>

#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/tool.hpp"

using namespace support;

namespace {

/// A shell that says which signals it gets, and ends on SIGTERM.
const std::string listener =
    "for s in INT USR1 USR2 WINCH CONT 40; do trap \"echo got $s\" $s; done; trap 'echo got TERM; exit 0' TERM;"
    "echo ready; while :; do sleep 0.02; done";

/// Everything that it got between the call and now: a last signal shows that the others were heard.
std::vector<std::string> heard(program& tool, pid_t command) {
  ::kill(command, SIGTERM);
  std::vector<std::string> lines = lines_of(tool.read_all());
  REQUIRE_FALSE(lines.empty());
  CHECK(lines.back() == "got TERM");
  lines.pop_back();
  return lines;
}

/// The process behind the tool: its warden's child.
pid_t command_of(const program& tool) {
  for (const pid_t warden : children_of(tool.pid()))
    for (const pid_t command : children_of(warden)) return command;
  return 0;
}

}  // namespace

TEST_CASE("signals to the tool alone are passed on, each once") {
  const scene s;
  const std::pair<int, const char*> signals[] = {
      {SIGUSR1, "got USR1"}, {SIGUSR2, "got USR2"}, {SIGWINCH, "got WINCH"}, {SIGINT, "got INT"}, {40, "got 40"}};
  for (const auto& each : signals) {
    const int number = each.first;
    const char* const said = each.second;
    CAPTURE(number);
    auto tool = s.start(run_words({}, {"bash", "-c", listener}));
    REQUIRE(tool.read_until("ready"));
    const pid_t command = command_of(tool);
    REQUIRE(command > 0);
    tool.signal(number);
    CHECK(tool.read_line() == said);
    CHECK(heard(tool, command).empty());
    CHECK(tool.wait().value_or(no_status).code() == 0);
  }
}

TEST_CASE("a signal that a service manager sends to every process arrives once") {
  const scene s;
  auto tool = s.start(run_words({}, {"bash", "-c", listener}));
  REQUIRE(tool.read_until("ready"));
  const pid_t command = command_of(tool);
  const std::vector<pid_t> wardens = children_of(tool.pid());
  REQUIRE(wardens.size() == 1);
  for (const int number : {SIGUSR1, SIGUSR2}) {  // as systemctl kill: all in the cgroup, one after the other
    ::kill(tool.pid(), number);
    ::kill(wardens.front(), number);
    ::kill(command, number);
    CHECK(tool.read_line() == (number == SIGUSR1 ? "got USR1" : "got USR2"));
  }
  // What the tool would have passed on is behind it now: this is passed on after it.
  tool.signal(40);
  CHECK(tool.read_line() == "got 40");
  CHECK(heard(tool, command).empty());
  CHECK(tool.wait().value_or(no_status).code() == 0);
}

TEST_CASE("a stopped command goes on when the tool is sent SIGCONT") {
  const scene s;
  auto tool = s.start(run_words({}, s.words({"sleep"})));
  REQUIRE(tool.read_until("ready"));
  const pid_t command = command_of(tool);
  const auto state = [&] { return support::detail::state_of("/proc/" + std::to_string(command)); };
  tool.signal(SIGTSTP);
  CHECK(wait_until([&] { return state() == 'T'; }));
  tool.signal(SIGCONT);
  CHECK(wait_until([&] { return state() == 'S'; }));
  tool.signal(SIGTERM);
  CHECK(tool.wait().value_or(no_status).code() == 128 + SIGTERM);
}
