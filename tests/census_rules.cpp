// What a census says of hosts on paper beside its ghosts: notes, managers, harmless words.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <instance_guard/detail/census_stale.hpp>
#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/paper_host.hpp"

using namespace support;

TEST_CASE("an empty table has no ghosts") {
  const census result = take_census(process_table());
  CHECK(result.ghosts.empty());
  CHECK(result.worst() == severity::note);
}

TEST_CASE("what runs by hand for long is noted; what a service looks after is not") {
  draft old = bot(1);
  old.terminal = 34'817;
  old.age = 25h;
  draft service = managed(2, "other", {"other"});
  service.age = 25h;
  const census result = paper_host().with(old).with(service).take();
  CHECK(result.ghosts.empty());
  CHECK(notes(result, note_kind::long_running) == 1);
  census_options later;
  later.older_than = 26h;
  CHECK(notes(paper_host().with(old).take(later), note_kind::long_running) == 0);
}

TEST_CASE("of which day the code of several is: one day if it is the same of all, else from and to") {
  const std::string path = "/nonexistent/bin/bot";
  draft oldest = managed(1);
  oldest.arguments = {path};
  oldest.executable = path;
  oldest.deleted = true;
  oldest.age = 24h * 9;
  draft middle = oldest, youngest = oldest;
  middle.number = 2;
  middle.age = 24h * 5;
  youngest.number = 3;
  youngest.age = 24h * 2;
  const auto day = [](const census& of, std::size_t at) {
    return instance_guard::detail::local_date(of.ghosts[0].processes[at].process.started_at);
  };
  const census apart = paper_host().with(oldest).with(youngest).with(middle).take();
  REQUIRE(kinds(apart) == std::vector<std::string>{"stale"});
  REQUIRE(apart.ghosts[0].processes.size() == 3);
  std::vector<std::string> days;
  for (std::size_t i = 0; i < 3; ++i) days.push_back(day(apart, i));
  std::sort(days.begin(), days.end());
  CHECK(apart.ghosts[0].headline ==
        "3 x bot run code of " + days.front() + " to " + days.back() + " that has been replaced");
  youngest.age = middle.age = oldest.age;
  const census together = paper_host().with(oldest).with(youngest).with(middle).take();
  REQUIRE(kinds(together) == std::vector<std::string>{"stale"});
  CHECK(together.ghosts[0].headline == "3 x bot run code of " + day(together, 0) + " that has been replaced");
}

TEST_CASE("processes of others are counted, not looked at") {
  draft other = bot(1);
  other.user = ::geteuid() + 1;
  const census result = paper_host().with(other).with(managed(2)).take();
  CHECK(result.unseen == (::geteuid() == 0 ? 1 : 2));  // and process 1, of root
  REQUIRE(result.blind_spots.size() == 1);
  CHECK(result.blind_spots[0].what == "other_users");
  CHECK(result.complete);
}

TEST_CASE("hostile names and arguments are harmless in all words that are printed") {
  const std::string evil = "\x1b[31m\n\xff)\x9b";
  paper_host host;
  draft one = bot(1, {evil, std::string(131'072, 'A'), "\xe2\x80\xae"});
  one.name = evil;
  one.arguments[1] = "/nonexistent/" + evil + "/main.py";
  draft two = one;
  two.number = 2;
  two.cgroup = unit("shiva");
  draft orphan = one;
  orphan.number = 3;
  orphan.arguments = {evil};
  orphan.executable = "/nonexistent/" + evil;
  orphan.markers = {{"CLAUDECODE", evil}, {"CLAUDE_CODE_SESSION_ID", evil}};
  // A parent that is only known by its name.
  const draft stranger = {.number = 5, .name = evil, .user = ::geteuid() + 1};
  draft dead_too = {.number = 6, .parent = 5, .name = evil, .state = process_state::zombie};
  one.arguments.push_back("--" + evil);
  draft dead = {.number = 4, .parent = 3, .name = evil, .state = process_state::zombie};
  host.with(one).with(two).with(orphan).with(dead).with(stranger).with(dead_too);
  const process_table earlier = host.table();
  census_options options;
  options.older_than = 1h;
  const census result = host.take(options, &earlier);
  CHECK(result.ghosts.size() == 4);
  const auto is_harmless = [](const std::string& text) {
    for (const char c : text)
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f ||
          static_cast<unsigned char>(c) == 0xff)
        return false;
    return text.find("\xe2\x80\xae") == std::string::npos && text.size() < 1000;
  };
  for (const ghost& each : result.ghosts) {
    for (const std::string& text : {each.program, each.headline, each.why, each.remedy}) CHECK(is_harmless(text));
    for (const census_entry& entry : each.processes) {
      CHECK(is_harmless(entry.difference));
      CHECK(is_harmless(entry.managed_by.text()));
    }
  }
  for (const note& each : result.notes) CHECK(is_harmless(each.text));
}

TEST_CASE("who manages a process is said of each, in the table's order") {
  paper_host host;
  host.with({.number = 1, .name = "cron", .arguments = {"cron"}, .executable = "/usr/sbin/cron"})
      .with({.number = 2, .parent = 1, .arguments = {"job"}})
      .with(managed(3))
      .with({.number = 4, .name = "bash", .arguments = {"-bash"}, .executable = "/usr/bin/bash", .terminal = 34'817})
      .with({.number = 5, .parent = 4, .arguments = {"x"}, .terminal = 34'817})
      .with({.number = 6, .arguments = {"x"}, .container = std::string(64, 'b')});
  const process_table table = host.table();
  std::error_code ec;
  const std::vector<process_manager> all = managers_of(table, ec);
  REQUIRE(!ec);
  REQUIRE(all.size() == table.size());
  CHECK(all[2].text() == "cron");
  CHECK(all[3].text() == "systemd unit shiva.service");
  CHECK(all[5].kind == manager_kind::terminal);
  CHECK(all[5].terminal == "/dev/pts/1");
  CHECK(all[6].kind == manager_kind::container);
  CHECK(managed_by(table, table[3], ec).name == "shiva.service");
}

TEST_CASE("a table of this host has no fault, and the caller is no ghost") {
  census_options options;
  options.min_age = 0s;
  const process_table before = process_table::read();
  const process_table now = process_table::read();
  const census result = take_census(now, &before, options);
  CHECK(result.processes > 0);
  for (const ghost& each : result.ghosts)
    for (const census_entry& one : each.processes) CHECK(one.process.id.pid != ::getpid());
}
