// Duplicates and declared services by the rules, on hosts on paper.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/paper_host.hpp"

using namespace support;

TEST_CASE("managed beside unmanaged is critical, the managed one is kept") {
  const census result = paper_host().with(bot(1, {"--debug"})).with(managed(2)).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  const ghost& found = result.ghosts[0];
  CHECK(found.level == severity::critical);
  CHECK(found.processes[0].keep);
  CHECK(found.processes[0].process.id.pid == paper_host::base + 2);
  CHECK(found.processes[1].difference == "+--debug");
  CHECK(found.headline == "shiva/main.py runs 2 times");
  CHECK(found.remedy == "instance-guard reap " + std::to_string(paper_host::base + 1));
}

TEST_CASE("a managed one may be young, an unmanaged one not") {
  draft young = managed(2);
  young.age = 5s;
  CHECK(paper_host().with(bot(1)).with(young).take().ghosts.size() == 1);
  draft fresh = bot(1);
  fresh.age = 5s;
  CHECK(paper_host().with(fresh).with(managed(2)).take().ghosts.empty());
  census_options soon;
  soon.min_age = 4s;
  CHECK(paper_host().with(fresh).with(managed(2)).take(soon).ghosts.size() == 1);
}

TEST_CASE("two units with the same arguments are a duplicate, with other arguments not") {
  CHECK(paper_host().with(managed(1)).with(managed(2, "other")).take().ghosts.size() == 1);
  CHECK(paper_host().with(managed(1)).with(managed(2, "other", {"--b"})).take().ghosts.empty());
  CHECK(paper_host().with(managed(1, "w@1")).with(managed(2, "w@2")).take().ghosts.empty());
}

TEST_CASE("workers count with their master, also in sessions of their own") {
  // Nothing else ties them together below cron: no unit, no supervisor, no job.
  const auto job = [](int number, int parent) {
    draft result = bot(number, {"--live"});
    result.parent = parent;
    return result;
  };
  const draft cron{.number = 1, .name = "cron", .arguments = {"cron"}, .executable = "/usr/sbin/cron"};
  draft shell{.number = 3, .parent = 2, .name = "sh", .arguments = {"sh", "-c", "x"}, .executable = "/usr/bin/dash"};
  CHECK(paper_host().with(cron).with(job(2, 1)).with(job(3, 2)).take().ghosts.empty());
  CHECK(paper_host().with(cron).with(job(2, 1)).with(shell).with(job(4, 3)).take().ghosts.empty());
  // But two runs of one job that overlap are two.
  CHECK(paper_host().with(cron).with(job(2, 1)).with(job(3, 1)).take().ghosts.size() == 1);
}

TEST_CASE("not of another user, another container, another directory of a runner") {
  draft other = bot(1);
  other.user = ::geteuid() + 1;
  census_options all;
  all.all_users = true;
  CHECK(paper_host().with(other).with(managed(2)).take(all).ghosts.empty());
  draft contained = bot(1);
  contained.container = std::string(64, 'a');
  CHECK(paper_host().with(contained).with(managed(2)).take().ghosts.empty());
}

TEST_CASE("of what is installed the values of options tell one from another, and so does a title") {
  const auto server = [](int number, std::vector<std::string> words) {
    return draft{.number = number,
                 .name = "prometheus",
                 .arguments = std::move(words),
                 .executable = "/usr/bin/prometheus",
                 .directory = "/"};
  };
  const auto found = [&](std::vector<std::string> service, std::vector<std::string> by_hand) {
    draft kept = server(1, std::move(service));
    kept.cgroup = unit("prometheus");
    return paper_host().with(kept).with(server(2, std::move(by_hand))).take().ghosts.size();
  };
  CHECK(found({"prometheus", "--port=1"}, {"prometheus", "--port=2"}) == 0);
  CHECK(found({"prometheus", "--port=1"}, {"prometheus", "--port=1", "--debug"}) == 1);
  CHECK(found({"prometheus *:1", "", ""}, {"prometheus *:2"}) == 0);
  CHECK(found({"prometheus *:1", "", ""}, {"prometheus *:1"}) == 1);
}

TEST_CASE("a virtual machine runs what its arguments say, wherever it is") {
  const auto node = [](int number, const std::string& name) {
    return draft{.number = number,
                 .name = "beam.smp",
                 .arguments = {"/srv/release/erts/bin/beam.smp", "--", "-root", "/srv/release", "-sname", name},
                 .executable = "/srv/release/erts/bin/beam.smp"};
  };
  const auto beside = [&](const std::string& name) {
    draft service = node(1, "shop");
    service.cgroup = unit("shop");
    return paper_host().with(service).with(node(2, name)).take().ghosts.size();
  };
  CHECK(beside("rem-77-shop") == 0);  // a remote console
  CHECK(beside("shop") == 1);
}

TEST_CASE("a shell of busybox is a shell") {
  const draft shell{
      .number = 2, .name = "ash", .arguments = {"-ash"}, .executable = "/bin/busybox", .terminal = 34'817};
  draft typed = bot(3, {"--debug"});
  typed.parent = 2;
  CHECK(paper_host().with(managed(1)).with(shell).with(typed).take().ghosts.size() == 1);
  draft applet = shell;
  applet.arguments = {"httpd", "-f"};
  CHECK(paper_host().with(managed(1)).with(applet).with(typed).take().ghosts.empty());
}

TEST_CASE("by hand in two directories of work is no duplicate, elsewhere than in that of the program") {
  const auto found = [](const char* one, const char* other) {
    draft first = {.number = 1, .arguments = {"/nonexistent/game/server"}, .executable = "/nonexistent/game/server"};
    draft second = first;
    second.number = 2;
    first.directory = one;
    second.directory = other;
    return paper_host().with(first).with(second).take().ghosts.size();
  };
  CHECK(found("/nonexistent/world-1", "/nonexistent/world-2") == 0);
  CHECK(found("/nonexistent/game/world-1", "/nonexistent/game/world-2") == 0);
  CHECK(found("/nonexistent/world-1", "/nonexistent/world-1") == 1);
  CHECK(found("/nonexistent/game", "/nonexistent/elsewhere") == 1);
  CHECK(found("/nonexistent", "/nonexistent/game") == 1);
}

TEST_CASE("other arguments, both in terminals, are no duplicate; the same are a warning") {
  draft one = bot(1, {"--a"}), two = bot(2, {"--b"}), same = bot(3, {"--a"});
  one.terminal = two.terminal = same.terminal = 34'817;
  CHECK(paper_host().with(one).with(two).take().ghosts.empty());
  const census result = paper_host().with(one).with(same).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  CHECK(result.ghosts[0].level == severity::warning);
}

TEST_CASE("it is said why the one to keep is kept") {
  const auto told = [](const census& result) {
    REQUIRE(result.ghosts.size() == 1);
    const ghost& found = result.ghosts[0];
    CHECK(found.processes[0].process.id.pid == paper_host::base + 2);
    for (const evidence& each : found.proof)
      if (each.key == "kept_because") return each.value + ": " + found.why;
    return std::string();
  };
  CHECK(told(paper_host().with(bot(1)).with(managed(2)).take()).starts_with("managed: "));
  draft younger = bot(1), older = bot(2);
  younger.started = 9'000'000;
  older.started = 8'000'000;
  younger.terminal = older.terminal = 34'817;
  const std::string text = told(paper_host().with(younger).with(older).take());
  CHECK(text.starts_with("older: "));
  CHECK(text.find("each by hand, kept is the one that is older; ") != std::string::npos);
}

TEST_CASE("a declared service is counted: too many, none, enough") {
  census_options options;
  options.services = {{"shiva", "shiva/main\\.py", 1}};
  draft one = bot(1, {"--a"}), two = bot(2, {"--b"});
  one.terminal = two.terminal = 34'817;
  const census two_run = paper_host().with(one).with(two).take(options);
  REQUIRE(kinds(two_run) == std::vector<std::string>{"duplicate"});
  CHECK(two_run.services[0].found == 2);
  const census none = paper_host().take(options);
  CHECK(none.services[0].found == 0);
  CHECK(notes(none, note_kind::service_missing) == 1);
  CHECK(none.worst() == severity::warning);
  options.services[0].count = 2;
  CHECK(paper_host().with(one).with(two).take(options).ghosts.empty());
}

TEST_CASE("of a service that should run several times, or never, only the count is judged") {
  const auto with_count = [](std::size_t count) {
    census_options options;
    options.services = {{"shiva", "shiva/main\\.py", count}};
    paper_host host;
    for (int i = 1; i <= 3; ++i) host.with(bot(i));
    return host.take(options);
  };
  CHECK(with_count(1).ghosts.size() == 1);
  CHECK(with_count(3).ghosts.empty());
  CHECK(notes(with_count(3), note_kind::service_missing) == 0);
  CHECK(with_count(3).services.at(0).found == 3);
  CHECK(with_count(4).ghosts.empty());
  CHECK(notes(with_count(4), note_kind::service_missing) == 1);
  const auto ended = [](const census& result) {
    REQUIRE(result.ghosts.size() == 1);
    std::size_t count = 0;
    for (const census_entry& each : result.ghosts[0].processes) count += each.keep ? 0U : 1U;
    return count;
  };
  CHECK(with_count(2).ghosts.at(0).remedy.ends_with(" --service 'shiva=shiva/main\\.py=2'"));
  CHECK(ended(with_count(2)) == 1);
  CHECK(ended(with_count(0)) == 3);
}

TEST_CASE("a shell, grep or an editor that mentions a declared service is not counted") {
  census_options options;
  options.services = {{"shiva", "shiva/main\\.py", 1}};
  const census result =
      paper_host()
          .with(managed(1))
          .with({.number = 2,
                 .name = "sh",
                 .arguments = {"sh", "-c", "python3 shiva/main.py"},
                 .executable = "/usr/bin/dash"})
          .with({.number = 3, .name = "grep", .arguments = {"grep", "shiva/main.py"}, .executable = "/usr/bin/grep"})
          .with({.number = 4, .name = "vim", .arguments = {"vim", "shiva/main.py"}, .executable = "/usr/bin/vim.basic"})
          .take(options);
  CHECK(result.services[0].found == 1);
  CHECK(result.ghosts.empty());
}

TEST_CASE("a pattern that is none is an error, not a crash; what is ignored is no ghost") {
  census_options options;
  options.ignore = {"("};
  std::error_code ec;
  CHECK(take_census(process_table(), nullptr, options, ec).ghosts.empty());
  CHECK(ec == std::errc::invalid_argument);
  options.ignore = {"shiva/main"};
  CHECK(paper_host().with(bot(1, {"--debug"})).with(managed(2)).take(options).ghosts.empty());
}

TEST_CASE("only the kinds that are asked for") {
  census_options options;
  options.kinds = {ghost_kind::orphan};
  CHECK(paper_host().with(bot(1)).with(managed(2)).take(options).ghosts.empty());
}

TEST_CASE("an orphan in a duplicate is told as that, and as an orphan where only those are asked for") {
  draft left = bot(1);
  left.markers = {{"CLAUDECODE", "1"}};
  CHECK(kinds(paper_host().with(left).with(managed(2)).take()) == std::vector<std::string>{"duplicate"});
  census_options options;
  options.kinds = {ghost_kind::orphan};
  const census result = paper_host().with(left).with(managed(2)).take(options);
  REQUIRE(kinds(result) == std::vector<std::string>{"orphan"});
  CHECK(result.ghosts[0].processes.size() == 1);
  CHECK(result.ghosts[0].processes[0].process.id.pid == paper_host::base + 1);
}
