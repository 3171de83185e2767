// managed_by: each of its values, with what is said of it. On paper, for not all can be had here.
#include <doctest/doctest.h>
#include <unistd.h>

#include <instance_guard/ghost_census.hpp>
#include <set>
#include <string>
#include <vector>

#include "support/paper_host.hpp"

using namespace support;

namespace {

/// Any program, as the child of number 1.
draft child(std::string name = "bot") {
  return {
      .number = 2, .parent = 1, .name = name, .arguments = {name}, .executable = "/nonexistent/" + name, .session = 1};
}
draft above(const std::string& name, std::vector<std::string> arguments = {}, std::string executable = {}) {
  if (arguments.empty()) arguments = {name};
  return {.number = 1,
          .name = name.substr(0, 15),
          .arguments = std::move(arguments),
          .executable = executable.empty() ? "/nonexistent/" + name : std::move(executable)};
}
draft in(const std::string& cgroup) {
  draft one = child();
  one.parent = 0;
  one.session = 2;
  one.cgroup = "0::" + cgroup + "\n";
  return one;
}

/// Who manages number 2.
process_manager manager_on(const std::vector<draft>& all) {
  paper_host host;
  for (const draft& each : all) host.with(each);
  const process_table table = host.table();
  std::error_code ec;
  return managed_by(table, *table.find(paper_host::base + 2), ec);
}

struct expected {
  std::string what;
  std::vector<draft> host;
  manager_kind kind;
  std::string name;
  std::string text;
};

const std::string pid_1 = std::to_string(paper_host::base + 1);

std::vector<expected> all_values() {
  std::vector<expected> list;
  const auto below = [&](const draft& one, manager_kind kind, const std::string& name, const std::string& text) {
    list.push_back({"below " + one.arguments.back(), {one, child()}, kind, name, text});
  };
  // Agents and runners, by their names and by the scripts that they are.
  for (const auto& [program, agent] :
       std::vector<std::pair<std::string, std::string>>{{"claude", "claude"},
                                                        {"codex", "codex"},
                                                        {"cursor-agent", "cursor"},
                                                        {"gemini", "gemini"},
                                                        {"Runner.Worker", "github"},
                                                        {"gitlab-runner", "gitlab"},
                                                        {"buildkite-agent", "buildkite"}})
    below(above(program), manager_kind::agent, agent, agent + " session, pid " + pid_1);
  below(above("java", {"java", "-jar", "/nonexistent/agent.jar"}, "/usr/bin/java"), manager_kind::agent, "jenkins",
        "jenkins session, pid " + pid_1);
  below(above("node", {"node", "/nonexistent/claude"}, "/usr/bin/node"), manager_kind::agent, "claude",
        "claude session, pid " + pid_1);
  for (const auto& [program, name] : std::vector<std::pair<std::string, std::string>>{
           {"supervisord", "supervisord"}, {"runsv", "runit"}, {"s6-supervise", "s6"}, {"circusd", "circusd"}})
    below(above(program), manager_kind::supervisor, name, name);
  below(above("PM2 v5.3.0: God", {"PM2 v5.3.0: God Daemon (/root/.pm2)"}, "/usr/bin/node"), manager_kind::supervisor,
        "pm2", "pm2");
  for (const char* program : {"cron", "crond", "anacron"}) below(above(program), manager_kind::cron, "cron", "cron");
  below(above("atd"), manager_kind::cron, "at", "at");
  below(above("tmux: server", {"tmux"}, "/usr/bin/tmux"), manager_kind::tmux, "tmux", "tmux");
  below(above("SCREEN", {"SCREEN"}, "/usr/bin/screen"), manager_kind::tmux, "screen", "screen");
  for (const char* program : {"sshd", "sshd-session", "dropbear"})
    below(above(program), manager_kind::ssh, "ssh", "ssh");
  below(above("make-it"), manager_kind::program, "make-it", "make-it, pid " + pid_1);
  // What the control group says.
  const std::string users = "/user.slice/user-1000.slice/user@1000.service";
  list.push_back(
      {"unit", {in("/system.slice/shiva.service")}, manager_kind::unit, "shiva.service", "systemd unit shiva.service"});
  list.push_back({"user unit",
                  {in(users + "/app.slice/shiva.service")},
                  manager_kind::user_unit,
                  "shiva.service",
                  "systemd user unit shiva.service"});
  list.push_back({"desktop",
                  {in(users + "/app.slice/app-firefox-77.scope")},
                  manager_kind::desktop,
                  "app-firefox-77.scope",
                  "desktop app-firefox-77.scope"});
  list.push_back({"what cron has left", {in("/system.slice/cron.service")}, manager_kind::cron, "cron", "cron"});
  draft contained = in("/");
  contained.container = std::string(64, 'c');
  list.push_back({"container", {contained}, manager_kind::container, contained.container, "container cccccccccccc"});
  draft typed = in("/");
  typed.terminal = 34'819;
  list.push_back({"terminal", {typed}, manager_kind::terminal, "", "terminal /dev/pts/3"});
  draft over_ssh = child();
  over_ssh.terminal = 34'819;
  list.push_back(
      {"ssh with a terminal", {above("sshd"), over_ssh}, manager_kind::ssh, "ssh", "ssh, terminal /dev/pts/3"});
  list.push_back({"nobody", {in("/")}, manager_kind::nobody, "", "nobody"});
  draft left = in("/");
  left.markers = {{"CLAUDECODE", "1"}};
  list.push_back(
      {"nobody, of an ended session", {left}, manager_kind::nobody, "", "nobody: its claude session has ended"});
  return list;
}

}  // namespace

TEST_CASE("each value of managed_by, by what the kernel tells of a process") {
  std::set<manager_kind> met;
  for (const expected& each : all_values()) {
    CAPTURE(each.what);
    const process_manager found = manager_on(each.host);
    CHECK(to_string(found.kind) == to_string(each.kind));
    CHECK(found.name == each.name);
    // How long nobody has typed is the host's.
    CHECK(found.text().substr(0, found.text().find(", idle")) == each.text);
    met.insert(found.kind);
  }
  // A guard takes a real holder (census_manager.cpp), launchd another system.
  for (int kind = 0; kind <= static_cast<int>(manager_kind::program); ++kind) {
    const auto each = static_cast<manager_kind>(kind);
    if (each == manager_kind::guard || each == manager_kind::launchd) continue;
    CHECK_MESSAGE(met.count(each) == 1, to_string(each));
  }
}

TEST_CASE("whose session a process was started in is told beside who manages it") {
  const auto session_of = [](const std::string& name, const std::string& value) {
    draft one = in("/system.slice/shiva.service");
    one.markers = {{name, value}};
    const process_manager found = manager_on({one});
    CHECK(found.kind == manager_kind::unit);
    return found.session + " " + found.session_id;
  };
  CHECK(session_of("CLAUDECODE", "1") == "claude ");
  CHECK(session_of("CLAUDE_CODE_SESSION_ID", "a1") == "claude a1");
  CHECK(session_of("CODEX_SESSION_ID", "b2") == "codex b2");
  CHECK(session_of("GEMINI_CLI", "1") == "gemini ");
  CHECK(session_of("CURSOR_TRACE_ID", "c3") == "cursor c3");
  CHECK(session_of("RUNNER_TRACKING_ID", "github_d4") == "github github_d4");
  CHECK(session_of("JENKINS_NODE_COOKIE", "e5") == "jenkins e5");
  CHECK(session_of("INSTANCE_GUARD_SESSION", "f6") == "session f6");
  CHECK(session_of("TERM", "xterm") == " ");
}

TEST_CASE("below a CI runner's unit: the runner is the unit's, its jobs are the runner's, what they leave nobody's") {
  const std::string cgroup = "0::/system.slice/actions.runner.knox-shiva.tesseract.service\n";
  const auto of_runner = [&](draft one, int number, int parent) {
    one.number = number;
    one.parent = parent;
    one.started = static_cast<std::uint64_t>(1000 + number);
    one.session = parent == 0 ? number : 1;
    one.cgroup = cgroup;
    return one;
  };
  paper_host host;
  host.with(of_runner(above("runsvc.sh", {"/bin/bash", "/nonexistent/runsvc.sh"}, "/usr/bin/bash"), 1, 0))
      .with(of_runner(above("node", {"node", "/nonexistent/RunnerService.js"}, "/usr/bin/node"), 2, 1))
      .with(of_runner(above("Runner.Listener"), 3, 2))
      .with(of_runner(above("Runner.Worker"), 4, 3))
      .with(of_runner(above("bash", {"bash", "-e", "/nonexistent/step.sh"}, "/usr/bin/bash"), 5, 4))
      .with(of_runner(above("claude"), 6, 5))
      .with(of_runner(child("bot"), 7, 6))
      .with(of_runner(child("left"), 8, 0));
  const process_table table = host.table();
  const auto text = [&](int number) {
    std::string said = managed_by(table, *table.find(paper_host::base + number)).text();
    const std::size_t at = said.find("pid ");
    return at == std::string::npos
               ? said
               : said.substr(0, at + 4) + std::to_string(std::stol(said.substr(at + 4)) - paper_host::base);
  };
  const std::string unit = "systemd unit actions.runner.knox-shiva.tesseract.service";
  CHECK(text(1) == unit);
  CHECK(text(2) == unit);
  CHECK(text(3) == unit);
  CHECK(text(4) == "github session, pid 3");
  CHECK(text(5) == "github session, pid 4");
  CHECK(text(6) == "github session, pid 4");
  CHECK(text(7) == "claude session, pid 6");
  CHECK(text(8) == "nobody");
  CHECK(!managed_by(table, *table.find(paper_host::base + 7)).is_service());
}

TEST_CASE("a runner that is not known by its name is its unit's all the same: it was there first") {
  for (const bool of_user : {false, true}) {
    CAPTURE(of_user);
    const std::string cgroup = of_user
                                   ? "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gitea-runner.service\n"
                                   : "0::/system.slice/gitea-runner.service\n";
    paper_host host;
    for (int number = 1; number <= 2; ++number) {
      draft one = number == 1 ? above("some-new-runner") : child("job");
      one.number = number;
      one.parent = number - 1;
      one.started = static_cast<std::uint64_t>(1000 + number);
      one.cgroup = cgroup;
      host.with(one);
    }
    const process_table table = host.table();
    const auto of = [&](int number) { return managed_by(table, *table.find(paper_host::base + number)); };
    CHECK(of(1).text() == (of_user ? "systemd user unit gitea-runner.service" : "systemd unit gitea-runner.service"));
    CHECK(of(1).is_service());
    CHECK(!of(2).is_service());
  }
}
