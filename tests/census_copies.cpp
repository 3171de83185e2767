// What an audit does not read: what workers have in common with their parent, and who manages a
// process that no rule asks about. Nothing else is found, or told, because of it.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <instance_guard/ghost_census.hpp>
#include <string>
#include <vector>

#include "support/forked.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using support::forked;
using support::program;
using support::scene;

namespace {

/// The pid of "ready pid=N …".
pid_t pid_of(const std::string& line) {
  const std::size_t at = line.find("pid=");
  return at == std::string::npos ? 0 : static_cast<pid_t>(std::strtol(line.c_str() + at + 4, nullptr, 10));
}

read_options without_copies() {
  read_options what = read_options::everything();
  what.skip_copies = true;
  return what;
}

const process_details& details_of(const process_table& table, pid_t pid) {
  const process_info* row = table.find(pid);
  REQUIRE(row != nullptr);
  return *table.stored_details(*row);
}

/// Becomes another program, with these words. Only returns if it can't.
int become(std::vector<std::string> words) {
  std::vector<char*> list;
  for (std::string& each : words) list.push_back(each.data());
  list.push_back(nullptr);
  ::execv(list[0], list.data());
  return 98;
}

/// Two helpers of a service that should run once.
struct two_helpers {
  scene s;
  program kept = s.start(s.words({"sleep"}));
  program extra = s.start(s.words({"sleep"}));
  census_options options = {};

  two_helpers() {
    REQUIRE(kept.read_until("ready"));
    REQUIRE(extra.read_until("ready"));
    options.min_age = std::chrono::seconds(0);
    options.services = {{"helper", s.helper() + " sleep$", 1}};
  }
};

int rest() {
  ::alarm(60);
  for (;;) ::pause();
}

}  // namespace

TEST_CASE("what a copy has in common with its parent is not read, the rest is") {
  const scene s;
  program parent = s.start(s.words({"fork", "sleep"}));
  const auto line = parent.read_until("ready");
  REQUIRE(line);
  const process_table table = process_table::read(without_copies());
  const process_details& original = details_of(table, parent.pid());
  CHECK(!original.as_parent);
  CHECK(original.arguments == s.words({"fork", "sleep"}));
  const process_details& copy = details_of(table, pid_of(*line));
  CHECK(copy.as_parent);
  CHECK(copy.arguments.empty());
  CHECK(copy.executable.path.empty());
  CHECK(copy.working_directory.path == original.working_directory.path);
  CHECK(copy.cgroup == original.cgroup);
  // Who asks for one process is told all.
  CHECK(table.details(*table.find(pid_of(*line))).arguments == original.arguments);
  CHECK(!table.stores(read_options::everything()));
  CHECK(!details_of(process_table::read(read_options::everything()), pid_of(*line)).as_parent);
  s.end();
}

TEST_CASE("what has executed a program since it was forked is no copy, though the program be the same") {
  const scene s;
  program parent = s.start(s.words({"fork", "cleared", "sleep"}));
  const auto line = parent.read_until("ready");
  REQUIRE(line);
  const process_table table = process_table::read(without_copies());
  const process_details& child = details_of(table, pid_of(*line));
  CHECK(!child.as_parent);
  CHECK(child.executable.path == s.helper());
  CHECK(!child.arguments.empty());
  s.end();
}

TEST_CASE("nor is one whose parent has executed another program since") {
  const scene s;
  forked parent([&](const support::teller& to) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      return rest();
    }
    to.say(std::to_string(child));
    return become(s.words({"sleep"}));
  });
  const auto line = parent.line();
  REQUIRE(line);
  const pid_t child = static_cast<pid_t>(std::strtol(line->c_str(), nullptr, 10));
  process_table table;
  REQUIRE(support::wait_until([&] {
    table = process_table::read(without_copies());
    const process_info* row = table.find(parent.pid());
    return row != nullptr && table.stored_details(*row)->executable.path == s.helper();
  }));
  const process_details& left = details_of(table, child);
  CHECK(!left.as_parent);
  CHECK(left.executable.path == std::filesystem::read_symlink("/proc/self/exe"));
}

TEST_CASE("nor where the addresses of a program are not random, and both have their words in the same places") {
  const scene s;
  // The child, and what its parent is by now, say that they are ready.
  program parent =
      s.start(s.words({"turned", "sleep"}), {.before_exec = [] { return ::personality(ADDR_NO_RANDOMIZE) != -1; }});
  const auto first = parent.read_until("ready");
  if (const auto status = first ? std::nullopt : parent.wait(); status && status->exited() && status->code() == 77) {
    MESSAGE("skipped: personality(2) is not allowed here");
    return;
  }
  const auto second = parent.read_until("ready");
  REQUIRE((first && second));
  const pid_t child = pid_of(*first) == parent.pid() ? pid_of(*second) : pid_of(*first);
  const process_table table = process_table::read(without_copies());
  CHECK(details_of(table, parent.pid()).arguments == s.words({"say=xx", "sleep"}));
  CHECK(!details_of(table, child).as_parent);
  CHECK(details_of(table, child).arguments == s.words({"turned", "sleep"}));
  s.end();
}

TEST_CASE("a copy that has made a title of its arguments is known by it") {
  const scene s;
  program parent = s.start(s.words({"fork", "renamed=bot", "sleep"}));
  const auto line = parent.read_until("ready");
  REQUIRE(line);
  const pid_t worker = pid_of(*line);
  const process_table table = process_table::read(census_read_options());
  REQUIRE(details_of(table, worker).as_parent);
  // Its own have no "sleep" any more.
  census_options options;
  options.services = {{"titled", s.helper() + " fork renamed=bot *$", 1}, {"both", s.helper() + " fork", 1}};
  const census result = take_census(table, nullptr, options);
  REQUIRE(result.services.at(0).found == 1);
  CHECK(result.services.at(0).processes.at(0).pid == worker);
  CHECK(result.services.at(1).found == 1);  // the worker counts with its master
  CHECK(result.services.at(1).processes.at(0).pid == parent.pid());
  s.end();
}

TEST_CASE("what has ended since the table was read is not told as one to be ended") {
  two_helpers two;
  const process_table table = process_table::read(census_read_options());
  const auto told = [&] {
    const census result = take_census(table, nullptr, two.options);
    CHECK(result.services.at(0).found == 2);  // as the table has it
    return std::any_of(result.ghosts.begin(), result.ghosts.end(), [&](const ghost& each) {
      return std::any_of(each.processes.begin(), each.processes.end(),
                         [&](const census_entry& one) { return one.process.id.pid == two.extra.pid(); });
    });
  };
  CHECK(told());
  two.extra.signal(SIGKILL);
  two.extra.wait();
  CHECK(!told());
  two.s.end();
}

TEST_CASE("what could not be looked at for want of descriptors is a fault, and not no ghost") {
  two_helpers two;
  forked looks([&](const support::teller&) {
    const process_table table = process_table::read(census_read_options());
    const rlimit none = {3, 3};
    if (::setrlimit(RLIMIT_NOFILE, &none) != 0) return 1;
    std::error_code ec;
    const census result = take_census(table, nullptr, two.options, ec);
    if (ec != std::errc::too_many_files_open || !result.ghosts.empty()) return 2;
    return managers_of(table, ec).empty() && ec == std::errc::too_many_files_open ? 0 : 3;
  });
  CHECK(looks.wait().code() == 0);
  two.s.end();
}
