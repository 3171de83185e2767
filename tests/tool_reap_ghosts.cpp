// instance-guard reap PID... and --orphans: what is a ghost now ends with its tree, and nobody else.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "../examples/instance-guard/reap_trees.hpp"
#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/scene.hpp"
#include "support/tool_result.hpp"

using namespace support;
using namespace std::chrono_literals;
using instance_guard::process_identity;

namespace {

tool_result reap(const scene& s, std::vector<std::string> words) {
  words.insert(words.begin(), {"reap", "--grace", "300ms"});
  return run_tool(s, std::move(words), {.merge_err = true});
}

std::vector<std::string> at_once(std::vector<std::string> words) {
  words.insert(words.end(), {"--min-age", "0"});
  return words;
}

bool expect(bool holds, const std::string& what, const tool_result& got) {
  if (!holds) std::fprintf(stderr, "not so: %s\nexit %d\n%s\n", what.c_str(), got.code, got.out.c_str());
  return holds;
}

/// What is left of a session that has ended, and the pid that it says.
pid_t start_orphan(const scene& s, std::vector<std::string> words = {"daemon", "sleep"},
                   std::vector<std::string> environment = {}, const std::string& program_path = {}) {
  // Each of another session: one that lives would speak for the others.
  static int count = 0;
  environment.push_back("INSTANCE_GUARD_SESSION=reap-" + std::to_string(::getpid()) + "-" + std::to_string(++count));
  words.insert(words.begin(), program_path.empty() ? s.helper() : program_path);
  program parent = s.start(std::move(words), {.environment = std::move(environment)});
  const auto line = parent.read_until("ready pid=");
  parent.wait();
  return line ? static_cast<pid_t>(std::stol(line->substr(10))) : 0;
}

bool lives(pid_t pid) {
  std::error_code ec;
  return instance_guard::is_alive(process_identity::of(pid, ec)) && !ec;
}

void alone(const std::function<int(const scene&)>& part) {
  const scene s;
  const int code = in_own_pid_namespace([&] { return part(s); });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
  else CHECK(code == 0);
}

}  // namespace

TEST_CASE("what is no pid is refused, and one way at a time") {
  const scene s;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"0"},
                                                                                     {"-1"},
                                                                                     {"1x"},
                                                                                     {"007"},
                                                                                     {"99999999999"},
                                                                                     {""},
                                                                                     {},
                                                                                     {"7", "--orphans"},
                                                                                     {"7", "--session", "x"},
                                                                                     {"--orphans", "--session", "x"}}) {
    const tool_result got = reap(s, words);
    CHECK(got.code == 125);
  }
}

TEST_CASE("an orphan ends, with all that is below it; a stranger stays") {
  const scene s;
  canary stranger;
  const pid_t leaf = start_orphan(s, {"daemon", "fork", "fork", "ignore", "sleep"});
  REQUIRE(leaf > 0);
  const auto table = instance_guard::process_table::read();
  const pid_t root = table.find(table.find(leaf)->parent)->parent;
  // Named twice it is one.
  const tool_result got = reap(s, at_once({std::to_string(root), std::to_string(root)}));
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("ended 3 processes"));
  CHECK(got.says("below pid " + std::to_string(root)));
  CHECK(s.empty());
}

TEST_CASE("the whole tree of an orphan ends: children, stopped ones, those that ignore SIGTERM") {
  alone([](const scene& s) {
    start_orphan(s, {"daemon", "fork", "fan=3", "ignore", "sleep"});
    start_orphan(s, {"daemon", "stopped"});
    const std::size_t before = s.processes().size();
    const tool_result dry = reap(s, at_once({"--orphans", "--dry-run"}));
    if (!expect(dry.code == 0 && dry.says("would end ") && s.processes().size() == before, "a dry run", dry)) return 1;
    for (const found_process& each : s.processes())
      if (!expect(dry.says("  " + std::to_string(each.pid) + " "), "each with its pid", dry)) return 4;
    if (!expect(dry.says("why") && dry.says("orphan: "), "and why", dry)) return 5;
    if (!expect(fits(dry.out), "80 columns", dry)) return 2;
    const tool_result got = reap(s, at_once({"--orphans"}));
    return expect(got.code == 0 && s.empty() && got.says("ended " + std::to_string(before)), "none is left", got) ? 0
                                                                                                                  : 3;
  });
}

TEST_CASE("a dry run of a pid prints exactly what would be ended and why, and ends nothing") {
  const scene s;
  canary stranger;
  const pid_t leaf = start_orphan(s, {"daemon", "fork", "fork", "ignore", "sleep"});
  REQUIRE(leaf > 0);
  const auto table = instance_guard::process_table::read();
  const pid_t middle = table.find(leaf)->parent;
  const pid_t root = table.find(middle)->parent;
  const tool_result dry = reap(s, at_once({std::to_string(root), "--dry-run"}));
  CAPTURE(dry.out);
  CHECK(dry.code == 0);
  CHECK(fits(dry.out));
  const std::vector<std::string> lines = lines_of(dry.out);
  REQUIRE(lines.size() > 2);
  CHECK(lines[0] == "would end 3 processes");
  CHECK(lines[1].starts_with("  PID "));
  std::vector<pid_t> told;
  std::size_t reasons = 0;
  for (std::size_t i = 2; i < lines.size(); ++i) {
    if (lines[i].starts_with("    why ")) ++reasons;
    else if (lines[i].size() > 2 && std::isdigit(static_cast<unsigned char>(lines[i][2])) != 0)
      told.push_back(static_cast<pid_t>(std::stol(lines[i].substr(2))));
  }
  std::vector<pid_t> tree = {root, middle, leaf};
  std::sort(told.begin(), told.end());
  std::sort(tree.begin(), tree.end());
  CHECK(told == tree);
  CHECK(reasons == 3);
  CHECK(dry.says("orphan: "));
  CHECK(dry.says("below pid " + std::to_string(root)));
  for (const pid_t each : tree) CHECK(lives(each));

  const tool_result innocent = reap(s, at_once({std::to_string(stranger.pid()), "--dry-run"}));
  CHECK(innocent.code == 1);
  CHECK(innocent.says("pid " + std::to_string(stranger.pid()) + " is no ghost"));
  CHECK(innocent.says("would end 0 processes"));

  // What was said is what happens.
  CHECK(reap(s, at_once({std::to_string(root)})).says("ended 3 processes"));
  CHECK(s.empty());
}

TEST_CASE("--orphans spares the young, what is meant to stay, and what is nobody's ghost") {
  alone([](const scene& s) {
    const pid_t young = start_orphan(s);
    // (Two of one program, one of them an orphan, would be a duplicate.)
    program child = s.start({"sleep", "60"});
    std::filesystem::copy_file(s.helper(), s / "keeper");
    const pid_t kept = start_orphan(s, {"daemon", "sleep"}, {"INSTANCE_GUARD_KEEP=1"}, s / "keeper");
    const tool_result by_age = reap(s, {"--orphans"});
    if (!expect(by_age.code == 0 && lives(young) && by_age.says("ended 0 processes"), "young", by_age)) return 1;
    const tool_result got = reap(s, at_once({"--orphans"}));
    if (!expect(got.code == 0 && !lives(young), "ended", got)) return 2;
    return expect(lives(kept) && !child.ended(), "spared", got) ? 0 : 3;
  });
}

TEST_CASE("refused: the one to keep, what would be started again, a zombie, what is above") {
  using namespace instance_guard;
  ghost found;
  found.kind = ghost_kind::duplicate;
  census_entry entry;
  entry.process.id.pid = 0x7ffffff0;
  entry.process.user = ::geteuid();
  CHECK(tool::why_not_ended(found, entry).empty());
  entry.keep = true;
  CHECK(tool::why_not_ended(found, entry).find("the one to keep") != std::string::npos);
  entry.keep = false;
  for (const manager_kind kind : {manager_kind::unit, manager_kind::user_unit, manager_kind::launchd,
                                  manager_kind::container, manager_kind::supervisor}) {
    entry.managed_by.kind = kind;
    CHECK(tool::why_not_ended(found, entry).find("would start it again") != std::string::npos);
  }
  for (const manager_kind kind : {manager_kind::terminal, manager_kind::tmux, manager_kind::program}) {
    entry.managed_by.kind = kind;
    CHECK(tool::why_not_ended(found, entry).empty());
  }
  entry.process.id.pid = ::getppid();
  CHECK(tool::why_not_ended(found, entry) == "this command is below it");
  entry.process.id.pid = 0x7ffffff0;
  found.kind = ghost_kind::zombie;
  CHECK(tool::why_not_ended(found, entry).find("has ended already") != std::string::npos);
}

TEST_CASE("what is no ghost is refused, and lives on") {
  const scene s;
  canary innocent;
  const tool_result got = reap(s, at_once({std::to_string(innocent.pid())}));
  CHECK(got.code == 1);
  CHECK(got.says("pid " + std::to_string(innocent.pid()) + " is no ghost"));
  CHECK(reap(s, at_once({std::to_string(::getpid())})).code == 1);
  CHECK(reap(s, at_once({"1"})).code == 1);
}

TEST_CASE("what has ended already is nothing to do; a zombie is its parent's to reap") {
  const scene s;
  const pid_t zombie = ::fork();
  if (zombie == 0) ::_exit(0);
  siginfo_t info;
  ::waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT);
  const tool_result got = reap(s, {std::to_string(zombie)});
  CHECK(got.code == 1);
  CHECK(got.says("zombie"));
  CHECK(got.says(std::to_string(::getpid())));
  ::waitpid(zombie, nullptr, 0);
  const tool_result gone = reap(s, {"999999999"});
  CHECK(gone.code == 0);
  CHECK(gone.says("pid 999999999 is not there (any more)\n"));
}

TEST_CASE("what is too many by a declaration alone ends where that is declared again, as the remedy does") {
  alone([](const scene& s) {
    program first = s.start(s.words({"sleep"}));
    if (!first.read_until("ready")) return 1;
    program second = s.start(s.words({"ignore", "sleep"}));
    if (!second.read_until("ready")) return 2;
    const std::string pid = std::to_string(second.pid());
    const tool_result without = reap(s, at_once({pid}));
    if (!expect(without.code == 1 && without.says("is no ghost"), "nobody has declared it", without)) return 3;
    const tool_result got = reap(s, at_once({pid, "--service", "one=" + s.helper()}));
    if (!expect(got.code == 0 && got.says("ended 1 process\n"), "one too many", got)) return 4;
    return second.ended() && !first.ended() ? 0 : 5;
  });
}

TEST_CASE("what audit says is to be typed is typed as it is printed: also for what is too young for reap by itself") {
  alone([](const scene& s) {
    const auto typed = [&](const std::string& begin, const tool_result& audited) {
      const std::size_t at = audited.out.find(begin);
      std::vector<std::string> words;
      if (at == std::string::npos) return words;
      std::istringstream line(audited.out.substr(at, audited.out.find('\n', at) - at));
      for (std::string word; line >> word;) words.push_back(word);
      words.erase(words.begin());  // the tool's name
      return words;
    };
    start_orphan(s);
    const tool_result one = run_tool(s, {"audit", "--min-age", "0"});
    const std::vector<std::string> reaps = typed("instance-guard reap ", one);
    if (!expect(reaps.size() > 1, "a remedy", one)) return 1;
    const tool_result ended = run_tool(s, reaps, {.merge_err = true});
    if (!expect(ended.code == 0 && ended.says("ended 1 process\n") && s.empty(), "the one", ended)) return 2;
    for (int i = 0; i < 5; ++i) start_orphan(s);
    const tool_result several = run_tool(s, {"audit", "--min-age", "0"});
    const std::vector<std::string> looks = typed("instance-guard audit ", several);
    if (!expect(!looks.empty(), "how to see them all", several)) return 3;
    const tool_result all = run_tool(s, looks);
    for (const found_process& each : s.processes())
      if (!expect(all.says(" " + std::to_string(each.pid) + " "), "each of them", all)) return 4;
    const tool_result dry = run_tool(s, typed("instance-guard reap ", several), {.merge_err = true});
    return expect(dry.code == 0 && dry.says("would end 5 processes\n"), "what would end", dry) ? 0 : 5;
  });
}

TEST_CASE("a pid that belongs to another process by now is left alone") {
  canary innocent;
  std::error_code ec;
  tool::doomed_process last_week;
  last_week.who = process_identity::of(innocent.pid(), ec);
  --last_week.who.start_time;
  std::vector<tool::doomed_process> all = {last_week};
  CHECK(tool::end_trees(all, 50ms).empty());
  CHECK(all.size() == 1);  // nor what is below it
  CHECK(innocent.alive());
}

TEST_CASE("another user's process is not ended, be it a ghost or below one") {
  if (!is_root()) {
    MESSAGE("skipped: another user's process needs root");
    return;
  }
  const scene s;
  program theirs = s.start(s.words({"fork", "sleep"}), {.before_exec = [] { return become(nobody); }});
  REQUIRE(theirs.read_until("ready"));
  std::error_code ec;
  instance_guard::ghost found;
  instance_guard::census_entry entry;
  entry.process.id = process_identity::of(theirs.pid(), ec);
  entry.process.user = nobody;
  CHECK(tool::why_not_ended(found, entry) == "another user's");
  entry.process.user = ::geteuid();
  CHECK(tool::why_not_ended(found, entry).empty());
  tool::doomed_process here;
  here.who = process_identity::self();
  std::vector<tool::doomed_process> all = {here};
  tool::add_descendants(all, instance_guard::process_table::read());
  bool met = false;
  for (const tool::doomed_process& each : all) {
    if (each.who.pid != theirs.pid()) continue;
    met = true;
    CHECK(each.kept == "another user's");
  }
  CHECK(met);
  const tool_result got = reap(s, at_once({"--orphans", "--all-users"}));
  CHECK(got.code == 125);  // it has no such option
  s.end();
}

TEST_CASE("what a supervisor below a ghost runs is a service, and stays") {
  const scene s;
  std::filesystem::copy_file(s.helper(), s / "supervisord");
  program supervisor = s.start({s / "supervisord", "fork", "fork", "sleep"});
  REQUIRE(supervisor.read_until("ready"));
  std::error_code ec;
  tool::doomed_process here;
  here.who = process_identity::self();
  std::vector<tool::doomed_process> all = {here};
  tool::add_descendants(all, instance_guard::process_table::read());
  std::size_t kept = 0;
  for (const tool::doomed_process& each : all)
    if (each.kept.starts_with("a service: ")) ++kept;
  CHECK(kept == 1);  // what is below that is not even looked at
  s.end();
}

TEST_CASE("descendants that are meant to stay do, with what is below them") {
  const scene s;
  program root = s.start(s.words({"fork", "sleep"}));
  REQUIRE(root.read_until("ready"));
  program kept = s.start(s.words({"fork", "sleep"}), {.environment = {"INSTANCE_GUARD_KEEP=1"}});
  REQUIRE(kept.read_until("ready"));
  std::error_code ec;
  tool::doomed_process doomed;
  doomed.who = process_identity::of(root.pid(), ec);
  std::vector<tool::doomed_process> all = {doomed};
  tool::add_descendants(all, instance_guard::process_table::read());
  CHECK(all.size() == 2);
  CHECK(all[1].kept.empty());
  tool::doomed_process spared;
  spared.who = process_identity::self();
  all = {spared};
  tool::add_descendants(all, instance_guard::process_table::read());
  std::size_t kept_ones = 0;
  for (const tool::doomed_process& each : all) {
    if (each.who.pid == kept.pid()) CHECK(each.kept.find("INSTANCE_GUARD_KEEP") != std::string::npos);
    kept_ones += each.kept.empty() ? 0U : 1U;
  }
  CHECK(kept_ones == 1);
  CHECK(all.size() == 4);  // the child of the one that stays is not even looked at
  all = {doomed};
  CHECK(tool::end_trees(all, 300ms).empty());
  CHECK(!kept.ended());
  s.end();
}
