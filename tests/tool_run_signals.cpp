// What is sent to the tool reaches the command, once.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <instance_guard/process_identity.hpp>
#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/service_cgroup.hpp"
#include "support/tool.hpp"
#include "support/unique_name.hpp"

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

/// A service of the test's, which is its manager: a command and one of its children in a session of its own.
struct service {
  scene s;
  service_cgroup group{unique_name("service")};
  program tool;

  explicit service(const std::vector<std::string>& options = {}, bool delegated = false)
      : tool(s.start(with_session(run_words(options, {"bash", "-c", two})), in_group(delegated))) {
    std::vector<std::string> ready = {tool.read_line().value_or(""), tool.read_line().value_or("")};
    std::sort(ready.begin(), ready.end());
    REQUIRE(ready == std::vector<std::string>{"inner ready", "outer ready"});
  }
  service(const service&) = delete;
  service& operator=(const service&) = delete;
  /// Nothing of it has to wait for its grace.
  ~service() {
    wait_until([&] { return tool.signal(SIGTERM), tool.ended(); });
  }
  pid_t warden() const {
    const std::vector<pid_t> all = children_of(tool.pid());
    return all.size() == 1 ? all.front() : 0;
  }
  /// The tool first, as systemd does, then whoever is in its cgroup; if that can't be, whoever there is.
  std::vector<pid_t> members() const {
    std::vector<pid_t> result = {tool.pid()};
    const auto add = [&](pid_t pid) {
      if (std::find(result.begin(), result.end(), pid) == result.end()) result.push_back(pid);
    };
    if (group.possible()) {
      for (const pid_t pid : group.members()) add(pid);
      for (const std::string& below : group.below()) {
        std::ifstream list(below + "/cgroup.procs");
        for (pid_t pid = 0; list >> pid;) add(pid);
      }
      return result;
    }
    add(warden());  // whose files an ordinary user may not read
    for (const found_process& each : s.processes()) add(each.pid);
    return result;
  }
  /// Everything that both have heard, sorted, when nothing is left of them: ended by a second signal,
  /// long after the first, once they have heard what is wanted.
  std::vector<std::string> heard(std::vector<std::string> wanted) {
    std::vector<std::string> lines;
    while (!wanted.empty()) {
      const auto line = tool.read_line();
      if (!line) break;
      lines.push_back(*line);
      const auto found = std::find(wanted.begin(), wanted.end(), *line);
      if (found != wanted.end()) wanted.erase(found);
    }
    CHECK(wait_until([&] { return tool.signal(SIGTERM), tool.ended(); }));
    for (std::string& each : lines_of(tool.read_all())) lines.push_back(std::move(each));
    std::sort(lines.begin(), lines.end());
    return lines;
  }

 private:
  /// Logs what it gets and does not end; what it starts is told by the shell's name.
  inline static const std::string one =
      "for s in TERM CONT HUP; do trap \"echo $0 got $s\" $s; done; echo $0 ready; while :; do sleep 0.02; done";
  inline static const std::string two =
      "export one='" + one + "'; setsid bash -c \"$one\" inner & exec bash -c \"$one\" outer";

  static std::vector<std::string> with_session(std::vector<std::string> words) {
    words.insert(words.begin(), "setsid");
    return words;
  }
  start_options in_group(bool delegated) {
    start_options options;
    if (delegated) REQUIRE(group.delegate(::geteuid()));
    if (group.possible()) options.before_exec = [this] { return group.add(::getpid()); };
    return options;
  }
};

/// A signal to each, the tool (the first) first, as systemd does. That needs a process that is not kept
/// waiting in between; one that may not ask for that tells the tool last.
void tell_all(const std::vector<pid_t>& members, int number) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  const bool hurries = ::setpriority(PRIO_PROCESS, 0, -20) == 0;
  if (hurries) ::kill(members.front(), number);
  for (std::size_t i = 1; i < members.size(); ++i) ::kill(members[i], number);
  if (!hurries) ::kill(members.front(), number);
  ::setpriority(PRIO_PROCESS, 0, before);
}

/// As systemd's KillMode=control-group.
void stop_all(const std::vector<pid_t>& members) {
  // Who was started in the same tick of the kernel's clock may have come after the stop: he is told once more.
  std::uint64_t youngest = 0;
  for (const pid_t pid : members) youngest = std::max(youngest, instance_guard::process_identity::of(pid).start_time);
  REQUIRE(wait_until([&] { return instance_guard::platform::process_clock_now() > youngest; }));
  for (const int number : {SIGTERM, SIGCONT}) tell_all(members, number);
}

const std::vector<std::string> each_once = {"inner got TERM", "outer got TERM"};

/// SIGCONT may come from both: it does no harm.
std::vector<std::string> without_cont(std::vector<std::string> heard) {
  std::erase_if(heard, [](const std::string& line) { return line.ends_with("CONT"); });
  return heard;
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
    tell_all({tool.pid(), wardens.front(), command}, number);
    CHECK(tool.read_line() == (number == SIGUSR1 ? "got USR1" : "got USR2"));
  }
  // What the tool would have passed on is behind it now: this is passed on after it.
  tool.signal(40);
  CHECK(tool.read_line() == "got 40");
  CHECK(heard(tool, command).empty());
  CHECK(tool.wait().value_or(no_status).code() == 0);
}

TEST_CASE("as process 1 of a pid namespace it passes signals on, and HUP ends its tree in order") {
  if (!is_root()) {
    MESSAGE("skipped: a pid namespace needs root");
    return;
  }
  const scene s;
  std::vector<std::string> words = run_words({"--grace", "10m"}, {"bash", "-c", listener});
  // A container's process 1 leads a session of that namespace.
  words.insert(words.begin(), {"unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "setsid"});
  auto container = s.start(words, {.merge_err = true});
  const auto first = container.read_line();
  if (first != "ready") {
    MESSAGE("skipped: no pid namespace here: " << first.value_or(""));
    return;
  }
  const std::vector<pid_t> inside = children_of(container.pid());
  REQUIRE(inside.size() == 1);
  const std::pair<int, const char*> signals[] = {
      {SIGUSR1, "got USR1"}, {SIGUSR2, "got USR2"}, {SIGINT, "got INT"}, {40, "got 40"}, {SIGINT, "got INT"}};
  for (const auto& each : signals) {
    ::kill(inside.front(), each.first);
    CHECK(container.read_line() == each.second);
  }
  ::kill(inside.front(), SIGHUP);
  CHECK(container.read_until("got") == "got TERM");
  CHECK(container.wait().value_or(no_status).code() == 0);
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

TEST_CASE("a stop that a service manager sends to every process arrives once, and the grace begins") {
  service unit({"--grace", "10m"});
  const std::vector<pid_t> members = unit.members();
  CHECK(members.size() >= 4);
  stop_all(members);
  const std::vector<std::string> all = {"inner got CONT", "inner got TERM", "outer got CONT", "outer got TERM"};
  const std::vector<std::string> heard = unit.heard(all);
  std::string said;
  for (const std::string& each : heard) said += each + "; ";
  CAPTURE(said);
  CHECK(heard == all);
  CHECK(unit.tool.wait().value_or(no_status).code() == 128 + SIGKILL);
}

TEST_CASE("a stop that a manager sends to all of a group that it has delegated arrives once") {
  const service_cgroup probe(unique_name("probe"));
  if (!probe.possible() || !probe.delegate(::geteuid())) {
    MESSAGE("skipped: needs cgroups of version 2 that this user can delegate");
    return;
  }
  service unit({"--grace", "10m"}, true);
  stop_all(unit.members());
  CHECK(without_cont(unit.heard(each_once)) == each_once);
}

TEST_CASE("a stop that a service manager sends to the tool alone arrives once at each") {
  service unit({"--grace", "10m"});
  unit.tool.signal(SIGTERM);  // KillMode=mixed
  CHECK(without_cont(unit.heard(each_once)) == each_once);
  CHECK(unit.tool.wait().value_or(no_status).code() == 128 + SIGKILL);
}

TEST_CASE("a stop that is another than the manager's is still sent") {
  service unit({"--grace", "10m", "--stop-signal", "HUP"});
  stop_all(unit.members());
  const std::vector<std::string> all = {"inner got HUP", "inner got TERM", "outer got HUP", "outer got TERM"};
  CHECK(without_cont(unit.heard(all)) == all);
}

TEST_CASE("who meets the tool and its warden by their names has not told the command") {
  service unit({"--grace", "10m"});
  REQUIRE(unit.warden() > 0);
  // From beside the tool, as pkill from its shell.
  const std::string both = std::to_string(unit.tool.pid()) + " " + std::to_string(unit.warden());
  auto stranger = unit.s.start({"bash", "-c", "kill " + both});
  CHECK(stranger.wait().value_or(no_status).code() == 0);
  CHECK(without_cont(unit.heard(each_once)) == each_once);
}

TEST_CASE("a process in another cgroup than the service's is told to stop") {
  const service_cgroup other(unique_name("other"));
  if (!other.possible()) {
    MESSAGE("skipped: needs cgroups of version 2 that this user can make");
    return;
  }
  service unit({"--grace", "10m"});
  const pid_t command = command_of(unit.tool);
  REQUIRE(other.add(command));
  stop_all(unit.members());
  CHECK(without_cont(unit.heard(each_once)) == each_once);
}

TEST_CASE("a second signal to the tool alone, right after one to all, is passed on") {
  const scene s;
  auto tool = s.start(run_words({}, {"bash", "-c", listener}));
  REQUIRE(tool.read_until("ready"));
  const pid_t command = command_of(tool);
  const std::vector<pid_t> wardens = children_of(tool.pid());
  REQUIRE(wardens.size() == 1);
  // The tool last: it would pass the signal on if this process had to wait for long before it told the warden.
  for (const pid_t pid : {command, wardens.front(), tool.pid()}) ::kill(pid, SIGUSR1);
  CHECK(tool.read_line() == "got USR1");
  tool.signal(40);
  CHECK(tool.read_line() == "got 40");  // the first has been dealt with
  tool.signal(SIGUSR1);
  CHECK(tool.read_line() == "got USR1");
  CHECK(heard(tool, command).empty());
  CHECK(tool.wait().value_or(no_status).code() == 0);
}

TEST_CASE("a signal that the warden was sent late, after it had been passed on, does not swallow the next") {
  const scene s;
  auto tool = s.start(run_words({}, {"bash", "-c", listener}));
  REQUIRE(tool.read_until("ready"));
  const pid_t command = command_of(tool);
  const std::vector<pid_t> wardens = children_of(tool.pid());
  REQUIRE(wardens.size() == 1);
  // What is said of the first holds for a quarter of a second: a round that took longer shows nothing.
  bool quick = false;
  for (int round = 0; round < 50 && !quick; ++round) {
    const auto began = std::chrono::steady_clock::now();
    tool.signal(SIGUSR1);
    REQUIRE(tool.read_line() == "got USR1");
    ::kill(wardens.front(), SIGUSR1);
    tool.signal(SIGUSR1);
    tool.signal(40);
    auto line = tool.read_line();
    quick = std::chrono::steady_clock::now() - began < std::chrono::milliseconds(250);
    if (quick) CHECK(line == "got USR1");
    if (line == "got USR1") line = tool.read_line();
    CHECK(line == "got 40");
  }
  if (!quick) MESSAGE("skipped: this machine was too slow each time");
  CHECK(heard(tool, command).empty());
  CHECK(tool.wait().value_or(no_status).code() == 0);
}
