// Zombies and orphans by the rules, on hosts on paper.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/paper_host.hpp"

using namespace support;

TEST_CASE("a zombie that was seen once is a note; seen twice it is a ghost, and its parent is named") {
  paper_host host;
  host.with({.number = 1, .name = "careless"})
      .with({.number = 2, .parent = 1, .name = "done", .state = process_state::zombie});
  census once = host.take();
  CHECK(once.ghosts.empty());
  CHECK(notes(once, note_kind::unconfirmed_zombie) == 1);

  const process_table earlier = host.table();
  const census twice = host.take({}, &earlier);
  REQUIRE(kinds(twice) == std::vector<std::string>{"zombie"});
  CHECK(twice.ghosts[0].headline.find("careless") != std::string::npos);
  CHECK(twice.ghosts[0].remedy.find("kill") == std::string::npos);
  CHECK(twice.ghosts[0].remedy.find("careless") != std::string::npos);

  // One that only now has ended was alive in the first look.
  paper_host before;
  before.with({.number = 1, .name = "careless"}).with({.number = 2, .parent = 1, .name = "done"});
  const process_table alive = before.table();
  CHECK(host.take({}, &alive).ghosts.empty());
}

TEST_CASE("a zombie under process 1 needs an init, under a unit a restart of it") {
  paper_host host;
  host.with({.number = 1, .name = "done", .state = process_state::zombie})
      .with({.number = 2, .name = "server", .cgroup = unit("web")})
      .with({.number = 3, .parent = 2, .name = "done", .state = process_state::zombie});
  const process_table earlier = host.table();
  const census result = host.take({}, &earlier);
  REQUIRE(result.ghosts.size() == 2);
  std::string remedies = result.ghosts[0].remedy + "; " + result.ghosts[1].remedy;
  CHECK(remedies.find("--init") != std::string::npos);
  CHECK(remedies.find("systemctl restart web.service") != std::string::npos);
}

TEST_CASE("nineteen orphans of one program are one ghost") {
  paper_host host;
  for (int i = 1; i <= 19; ++i)
    host.with({.number = i,
               .arguments = {"python3", "/nonexistent/bin/pytest", "-x"},
               .markers = {{"CLAUDECODE", "1"}},
               .memory = 400 << 20});
  const census result = host.take();
  REQUIRE(kinds(result) == std::vector<std::string>{"orphan"});
  CHECK(result.ghosts[0].processes.size() == 19);
  CHECK(result.ghosts[0].resident_bytes() == 19ull * (400 << 20));
  CHECK(result.ghosts[0].headline.substr(0, 11) == "19 x pytest");
  CHECK(result.ghosts[0].remedy == "instance-guard reap --orphans --dry-run");
}

TEST_CASE("what says that it is meant to stay is spared with what is below it, also below an orphan") {
  paper_host host;
  host.with({.number = 1, .arguments = {"x"}, .markers = {{"CLAUDECODE", "1"}}})
      .with({.number = 2, .parent = 1, .arguments = {"y"}, .markers = {{"CLAUDECODE", "1"}}})
      .with({.number = 3, .parent = 1, .arguments = {"z"}, .markers = {{"INSTANCE_GUARD_KEEP", "1"}}})
      .with({.number = 4, .parent = 3, .arguments = {"z"}, .markers = {{"CLAUDECODE", "1"}}});
  const census result = host.take();
  REQUIRE(kinds(result) == std::vector<std::string>{"orphan"});
  REQUIRE(result.ghosts[0].processes.size() == 2);
  CHECK(result.ghosts[0].processes[1].process.id.pid == paper_host::base + 2);
}

TEST_CASE("what leads its own session without a mark is detached, with a mark an orphan") {
  CHECK(notes(paper_host().with({.number = 1, .arguments = {"x"}}).take(), note_kind::detached) == 1);
  const census marked = paper_host().with({.number = 1, .arguments = {"x"}, .markers = {{"GEMINI_CLI", "1"}}}).take();
  CHECK(kinds(marked) == std::vector<std::string>{"orphan"});
}

TEST_CASE("whether SIGHUP is ignored can't be told: no orphan") {
  // Of a process on paper the system knows nothing.
  const census result = paper_host().with({.number = 1, .arguments = {"x"}, .session = 77, .group = 77}).take();
  CHECK(result.ghosts.empty());
  CHECK(notes(result, note_kind::detached) == 1);
}

TEST_CASE("a child of a process 1 that is no init may be its own") {
  paper_host host;
  process_info first;
  first.id = {1, {}, 1, 1};
  first.threads = 1;
  std::string("agent-host").copy(first.name_bytes, 15);
  process_info child = first;
  child.id.pid = child.session = child.group = paper_host::base;
  child.id.start_time = 5;
  child.parent = 1;
  child.user = ::geteuid();
  process_details marked;
  marked.markers = {{"CLAUDECODE", "1"}};
  CHECK(take_census(process_table::of({first, child}, {{}, marked})).ghosts.empty());
  std::string("tini\0      ", 11).copy(first.name_bytes, 11);
  CHECK(take_census(process_table::of({first, child}, {{}, marked}, std::chrono::system_clock::now())).ghosts.size() ==
        1);
}

TEST_CASE("an agent that is process 1 of its container is a living one") {
  process_info first;
  first.id = {1, {}, 1, 1};
  first.threads = 1;
  first.session = first.group = 1;
  first.user = ::geteuid();
  std::string("claude").copy(first.name_bytes, 15);
  process_details agent;
  agent.arguments = {"claude"};
  agent.executable.path = "/usr/bin/claude";
  agent.working_directory.path = "/nonexistent/repo";
  process_info left = first;
  left.id.pid = paper_host::base;
  left.id.start_time = 5;
  left.parent = 1;
  left.session = left.group = paper_host::base + 1;  // of a shell that is gone
  process_details marked;
  marked.arguments = {"x"};
  marked.working_directory.path = "/nonexistent/repo";
  marked.markers = {{"CLAUDECODE", "1"}};
  const auto now = std::chrono::system_clock::now();
  const census spared = take_census(process_table::of({first, left}, {agent, marked}, now));
  CHECK(spared.ghosts.empty());
  CHECK(notes(spared, note_kind::living_agent) == 1);
  agent.executable.path = "/usr/bin/other";
  agent.arguments = {"other"};
  std::string("other\0", 6).copy(first.name_bytes, 6);
  first.name_bytes[5] = first.name_bytes[6] = '\0';
  CHECK(take_census(process_table::of({first, left}, {agent, marked}, now)).ghosts.size() == 1);
}

TEST_CASE("a parent that started later is a stranger with a reused number") {
  paper_host host;
  host.with({.number = 9, .name = "stranger", .arguments = {"stranger"}});
  const process_table table = host.with({.number = 1, .parent = 9, .arguments = {"x"}}).table();
  CHECK(managed_by(table, *table.find(paper_host::base + 1)).kind == manager_kind::nobody);
}

TEST_CASE("a session with an id lives while one of its agents does") {
  const std::vector<process_variable> mine = {{"CLAUDECODE", "1"}, {"CLAUDE_CODE_SESSION_ID", "s1"}};
  const std::vector<process_variable> other = {{"CLAUDECODE", "1"}, {"CLAUDE_CODE_SESSION_ID", "s2"}};
  // An agent under any name, known by the mark that it gives to what it starts.
  const auto host = [&](const std::string& agent, const std::vector<process_variable>& of_agent) {
    return paper_host()
        .with({.number = 1, .name = agent, .arguments = {agent}, .executable = "/usr/bin/" + agent})
        .with({.number = 2,
               .parent = 1,
               .name = "work",
               .arguments = {"work"},
               .executable = "/usr/bin/work",
               .markers = of_agent})
        .with({.number = 3,
               .arguments = {"python3", "/nonexistent/x.py"},
               .directory = "/nonexistent/elsewhere",
               .markers = mine})
        .take();
  };
  const auto is_called = [](const census& result) {
    for (const ghost& each : result.ghosts)
      for (const census_entry& one : each.processes)
        if (one.process.id.pid == paper_host::base + 3) return true;
    return false;
  };
  for (const char* agent : {"claude", "never-heard-of"}) {
    CAPTURE(agent);
    CHECK(!is_called(host(agent, mine)));
    CHECK(is_called(host(agent, other)));
  }
}

TEST_CASE("without an id an agent spares what was left in its directory, if it was there before") {
  const std::vector<process_variable> mark = {{"GEMINI_CLI", "1"}};
  const auto is_called = [&](int agent_number, const std::string& directory) {
    paper_host host;
    host.with({.number = agent_number,
               .name = "agent",
               .arguments = {"agent"},
               .executable = "/usr/bin/agent",
               .directory = "/nonexistent/repo"})
        .with({.number = agent_number + 1,
               .parent = agent_number,
               .name = "work",
               .arguments = {"work"},
               .executable = "/usr/bin/work",
               .markers = mark})
        .with({.number = 5, .arguments = {"python3", "/nonexistent/x.py"}, .directory = directory, .markers = mark});
    const census result = host.take();
    bool called = false;
    for (const ghost& each : result.ghosts)
      for (const census_entry& one : each.processes) called = called || one.process.id.pid == paper_host::base + 5;
    return called;
  };
  CHECK(!is_called(1, "/nonexistent/repo"));
  CHECK(!is_called(1, "/nonexistent/repo/deep"));
  CHECK(is_called(1, "/nonexistent/repository"));
  CHECK(is_called(7, "/nonexistent/repo"));
}

TEST_CASE("a session that was exported in a shell lives while something of it does") {
  const std::vector<process_variable> mark = {{"INSTANCE_GUARD_SESSION", "s7"}};
  paper_host host;
  host.with({.number = 1, .name = "bash", .arguments = {"-bash"}, .executable = "/usr/bin/bash", .terminal = 34'817});
  const draft left{.number = 3, .arguments = {"python3", "/nonexistent/x.py"}, .markers = mark};
  paper_host alone = host;
  CHECK(kinds(alone.with(left).take()) == std::vector<std::string>{"orphan"});
  draft living{
      .number = 2, .parent = 1, .name = "work", .arguments = {"work"}, .executable = "/usr/bin/work", .markers = mark};
  CHECK(host.with(living).with(left).take().ghosts.empty());
}
