// Agents without a terminal that nobody uses, as it seems: told with what they hold, and only they.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/own_pid_namespace.hpp"
#include "support/paper_host.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"
#include "support/wait_until.hpp"

using namespace support;

namespace {

/// An agent that was left alone for two days.
draft agent(int number) {
  return {.number = number,
          .name = "claude",
          .arguments = {"claude"},
          .executable = "/nonexistent/bin/claude",
          .age = 50h,
          .processor = 2min};
}
draft work(int number, int parent) {
  draft result = bot(number, {"--part", std::to_string(number)});
  result.parent = parent;
  result.session = parent;
  result.age = 49h;
  return result;
}

std::vector<note> idle(const census& result) {
  std::vector<note> found;
  for (const note& each : result.notes)
    if (each.kind == note_kind::idle_session) found.push_back(each);
  return found;
}

std::size_t idle_on(const draft& one) { return idle(paper_host().with(one).take()).size(); }

bool names(const std::vector<note>& notes, pid_t pid) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const note& each) { return each.processes.front().process.id.pid == pid; });
}

}  // namespace

TEST_CASE("an agent without a terminal that hardly used the processor is noted, with what it holds") {
  const census result = paper_host().with(agent(1)).with(work(2, 1)).with(work(3, 2)).take();
  const std::vector<note> found = idle(result);
  REQUIRE(found.size() == 1);
  CHECK(found[0].level == severity::note);
  CHECK(found[0].processes.size() == 3);
  CAPTURE(found[0].text);
  for (const char* part : {"claude (pid 5000001, 2d 2h, nobody) has no terminal", "2m of processor time",
                           "(pid 5000002)", "(pid 5000003)", "30 MB"})
    CHECK(found[0].text.find(part) != std::string::npos);
  CHECK(result.worst() == severity::note);
}

TEST_CASE("one that works, is young, is touched or is somebody's is not noted") {
  REQUIRE(idle_on(agent(1)) == 1);
  const auto but = [](auto change) {
    draft one = agent(1);
    change(one);
    return idle_on(one);
  };
  CHECK(but([](draft& one) { one.processor = 20min; }) == 0);
  CHECK(but([](draft& one) {
          one.age = 23h;
          one.processor = 0ms;
        }) == 0);
  // What is known of a terminal is told of the terminal.
  CHECK(but([](draft& one) { one.terminal = 34'817; }) == 0);
  // A runner waits for jobs; its service manager starts it again.
  CHECK(but([](draft& one) { one.cgroup = unit("actions-of-mine"); }) == 0);
  CHECK(but([](draft& one) { one.cgroup = "0::/user.slice/user-1000.slice/app-cursor-1.scope\n"; }) == 0);
  CHECK(but([](draft& one) { one.user = ::geteuid() + 1; }) == 0);
  CHECK(but([](draft& one) { one.state = process_state::zombie; }) == 0);
  CHECK(but([](draft& one) {
          one.name = "bot";
          one.arguments = {"bot"};
          one.executable = "/nonexistent/bot";
        }) == 0);
}

TEST_CASE("one whose work is busy or new is not noted; an agent below another is told with that one") {
  draft busy = work(2, 1);
  busy.processor = 1h;
  CHECK(idle(paper_host().with(agent(1)).with(busy).take()).empty());
  draft fresh = work(2, 1);
  fresh.age = 1h;
  CHECK(idle(paper_host().with(agent(1)).with(fresh).take()).empty());
  draft below = agent(2);
  below.parent = 1;
  below.session = 1;
  const std::vector<note> found = idle(paper_host().with(agent(1)).with(below).take());
  REQUIRE(found.size() == 1);
  CHECK(found[0].processes.size() == 2);
}

TEST_CASE("an agent of an unheard name is known by the mark that it has given") {
  draft unheard = agent(1);
  unheard.name = "node";
  unheard.arguments = {"node", "/nonexistent/agent.js"};
  unheard.executable = "/usr/bin/node";
  draft marked = work(2, 1);
  marked.markers = {{"CLAUDECODE", "1"}};
  CHECK(idle(paper_host().with(unheard).with(marked).take()).size() == 1);
  marked.markers.clear();
  CHECK(idle(paper_host().with(unheard).with(marked).take()).empty());
}

TEST_CASE("of real ones the idle is noted, with the guard that it holds; busy and fresh ones are not") {
  const scene s;
  const std::string claude = s / "claude";
  std::filesystem::copy_file(s.helper(), claude);
  const std::string name = unique_name("idle");
  const int code = in_own_pid_namespace([&] {
    const temporary_directory locks;
    const auto start = [&](std::vector<std::string> words) {
      words.insert(words.begin(), claude);
      return s.start(std::move(words),
                     {.environment = {"CENSUS_GUARD=" + name, "CENSUS_LOCKS=" + locks.path().string()},
                      .before_exec = [] { return ::setsid() > 0 || ::getsid(0) == ::getpid(); }});
    };
    const std::string fifo = locks / "fifo";
    if (::mkfifo(fifo.c_str(), 0600) != 0) return 1;
    program forgotten = start({"fork", "exec", INSTANCE_GUARD_CENSUS_ACTOR});
    // What it holds is older than the others, too.
    if (!wait_until([&] { return !process_table::read().children_of(forgotten.pid()).empty(); })) return 5;
    program busy = start({"spin"});
    program used = start({"broker=" + fifo, "sleep"});
    if (!busy.read_until("ready") || !used.read_until("ready")) return 2;
    census_options options;
    options.older_than = 2s;
    options.lock_directory = locks.path();
    process_table table;
    const auto look = [&] {
      table = process_table::read(census_read_options());
      return idle(take_census(table, nullptr, options));
    };
    // Until they are old enough for the processor time that their start took.
    std::vector<note> found;
    const bool told = wait_until(
        [&] {
          found = look();
          const bool with_guard = std::any_of(found.begin(), found.end(), [&](const note& each) {
            return names({each}, forgotten.pid()) && each.processes.size() == 2 &&
                   each.text.find("the guard " + name) != std::string::npos;
          });
          return with_guard && names(found, used.pid());
        },
        60s);
    if (!told) {
      for (const note& each : found) std::fprintf(stderr, "%s\n", each.text.c_str());
      return 3;
    }
    if (names(found, busy.pid()) || found.size() != 2) return 4;
    // It starts something: somebody uses it.
    { std::ofstream(fifo) << "A=B\n"; }
    const bool started = wait_until([&] {
      table = process_table::read();
      return !table.children_of(used.pid()).empty();
    });
    if (!started) return 6;
    options.older_than = std::chrono::duration_cast<std::chrono::seconds>(table.age(*table.find(used.pid())));
    found = look();
    if (!names(found, forgotten.pid()) || names(found, used.pid())) return 7;
    return 0;
  });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
  else CHECK(code == 0);
}
