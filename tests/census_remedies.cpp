// What a census says is to be typed: it does what it says when it is pasted, and hits nobody else.
#include <doctest/doctest.h>

#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/paper_host.hpp"

using namespace support;

namespace {

std::string pid(int number) { return std::to_string(paper_host::base + number); }

draft cron_daemon(int number) {
  return {.number = number, .name = "cron", .arguments = {"cron"}, .executable = "/usr/sbin/cron"};
}
draft below(int parent, draft what) {
  what.parent = parent;
  return what;
}
draft deleted(draft what, const std::string& path = "/nonexistent/bin/bot") {
  what.arguments = {path};
  what.executable = path;
  what.deleted = true;
  return what;
}

}  // namespace

TEST_CASE("a job of cron is ended by itself, not with cron") {
  const census result = paper_host().with(cron_daemon(1)).with(managed(2)).with(below(1, bot(3))).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  CHECK(result.ghosts[0].remedy == "instance-guard reap " + pid(3));
}

TEST_CASE("a duplicate that is looked after is stopped by who looks after it") {
  CHECK(paper_host().with(managed(1)).with(managed(2, "other")).take().ghosts.at(0).remedy ==
        "systemctl stop other.service");
  draft of_user = bot(2);
  of_user.cgroup = "0::/user.slice/user-7.slice/user@7.service/app.slice/other.service\n";
  CHECK(paper_host().with(managed(1)).with(of_user).take().ghosts.at(0).remedy ==
        "systemctl --user stop other.service");
  const draft supervisor{.number = 3, .name = "pm2", .arguments = {"pm2"}, .executable = "/nonexistent/pm2"};
  CHECK(paper_host().with(managed(1)).with(supervisor).with(below(3, bot(4))).take().ghosts.at(0).remedy ==
        "stop it in pm2, pid " + pid(4));
}

TEST_CASE("of several each is told: those that nobody looks after, and those that somebody would start again") {
  const census result = paper_host().with(managed(1)).with(managed(2, "other")).with(bot(3)).with(bot(4)).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  CHECK(result.ghosts[0].level == severity::critical);
  CHECK(result.ghosts[0].remedy == "instance-guard reap " + pid(3) + " " + pid(4) + "; systemctl stop other.service");
}

TEST_CASE("what is too many of a declared service is stopped by who looks after it, else reaped by the declaration") {
  census_options options;
  options.services = {{"shiva", "shiva/main\\.py", 2}};
  const census result = paper_host()
                            .with(managed(1))
                            .with(managed(2, "b", {"-b"}))
                            .with(managed(3, "c", {"-c"}))
                            .with(bot(4, {"-d"}))
                            .take(options);
  REQUIRE(result.ghosts.size() == 1);
  CHECK(result.ghosts[0].remedy ==
        "instance-guard reap " + pid(4) + " --service 'shiva=shiva/main\\.py=2'; systemctl stop c.service");
}

TEST_CASE("younger ones than reap would see are told with the age that was asked for") {
  draft fresh = bot(1);
  fresh.age = 90s;
  draft left = bot(3, {"--left"});
  left.arguments[1] = "/nonexistent/left.py";
  left.markers = {{"CLAUDECODE", "1"}};
  left.age = 90s;
  const auto remedies = [&](std::chrono::seconds age, int how_many) {
    census_options options;
    options.min_age = age;
    paper_host host;
    host.with(fresh).with(managed(2));
    for (int i = 0; i < how_many; ++i) {
      left.number = 3 + i;
      host.with(left);
    }
    std::vector<std::string> result;
    for (const ghost& each : host.take(options).ghosts) result.push_back(each.remedy);
    return result;
  };
  using list = std::vector<std::string>;
  CHECK(remedies(1min, 1) ==
        list{"instance-guard reap " + pid(1) + " --min-age 1m", "instance-guard reap " + pid(3) + " --min-age 1m"});
  CHECK(remedies(75s, 2) == list{"instance-guard reap " + pid(1) + " --min-age 75s",
                                 "instance-guard reap --orphans --dry-run --min-age 75s"});
  CHECK(remedies(0s, 0) == list{"instance-guard reap " + pid(1) + " --min-age 0s"});
  CHECK(remedies(2min, 1).empty());
}

TEST_CASE("of stale ones each is told, but not what ends with its parent") {
  const draft by_unit = deleted(managed(1));
  const draft by_hand = deleted(bot(2)), worker = below(2, deleted(bot(3)));
  const census result = paper_host().with(by_unit).with(by_hand).with(worker).take();
  std::string remedy;
  for (const ghost& each : result.ghosts)
    if (each.kind == ghost_kind::stale) remedy = each.remedy;
  // The one by hand is a duplicate, and ends as such.
  CHECK(remedy == "systemctl restart shiva.service");
  census_options options;
  options.kinds = {ghost_kind::stale};
  options.min_age = 24h;
  const census alone = paper_host().with(by_unit).with(by_hand).with(worker).take(options);
  REQUIRE(alone.ghosts.size() == 1);
  CHECK(alone.ghosts[0].remedy == "systemctl restart shiva.service; instance-guard reap " + pid(2));
}

TEST_CASE("bytes that a terminal would obey are told by their numbers, in each text and in what is to be pasted") {
  draft one = bot(1), two = managed(2);
  one.arguments[1] = two.arguments[1] = "/nonexistent/sh\x1b[iva/main.py";
  const census result = paper_host().with(one).with(two).take();
  REQUIRE(result.ghosts.size() == 1);
  CHECK(result.ghosts[0].program == "sh\\x1b[iva/main.py");
  CHECK(result.ghosts[0].headline == "sh\\x1b[iva/main.py runs 2 times");
  census_options options;
  options.services = {{"it's\x1b", "main\\.py", 1}};
  const census declared = paper_host().with(bot(1, {"-a"})).with(bot(2, {"-b"})).take(options);
  REQUIRE(declared.ghosts.size() == 1);
  CHECK(declared.ghosts[0].remedy == "instance-guard reap " + pid(2) + " --service $'it\\'s\\x1b=main\\\\.py=1'");
}
