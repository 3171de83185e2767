// process_group end to end: start, wait, end; and the end of the owner by whatever means.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <instance_guard/process_group.hpp>
#include <iterator>
#include <string>
#include <vector>

#include "support/forked.hpp"
#include "support/open_descriptors.hpp"
#include "support/scene.hpp"
#include "support/stubborn_children.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// Reads a child's stdout up to its "ready".
bool is_ready(child& c) {
  std::string text;
  char byte = 0;
  while (::read(c.out().get(), &byte, 1) == 1) {
    text += byte;
    if (byte == '\n' && text.find("ready") != std::string::npos) return true;
  }
  return false;
}

std::string read_all(const file_descriptor& from) {
  std::string text;
  char block[4096];
  for (ssize_t size = 0; (size = ::read(from.get(), block, sizeof block)) > 0;)
    text.append(block, static_cast<std::size_t>(size));
  return text;
}

}  // namespace

TEST_CASE("each exit status arrives at its own handle") {
  const scene s;
  process_group group;
  std::vector<child> children;
  for (int code = 0; code < 256; code += 15) children.push_back(group.spawn(s.words({"exit=" + std::to_string(code)})));
  for (std::size_t i = 0; i < children.size(); ++i) {
    CHECK(children[i].wait().code() == static_cast<int>(i) * 15);
    CHECK(children[i].wait().code() == static_cast<int>(i) * 15);  // and stays there
  }
  for (const int number : {SIGTERM, SIGKILL, SIGSEGV, SIGUSR1}) {
    child c = group.spawn(s.words({"signal=" + std::to_string(number)}));
    CHECK(c.wait().signal() == number);
  }
}

TEST_CASE("an exec that fails is reported with its reason and leaves nothing") {
  const scene s;
  process_group group;
  std::error_code ec;
  CHECK_FALSE(group.spawn({"/no/such/program"}, ec));
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(group.spawn({"no-such-program-anywhere"}, ec));
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(group.spawn({"/etc"}, ec));
  CHECK(ec == std::errc::permission_denied);
  std::ofstream(s / "text") << "no program at all";
  ::chmod((s / "text").c_str(), 0755);
  CHECK_FALSE(group.spawn({s / "text"}, ec));
  CHECK(ec == std::errc::executable_format_error);
  CHECK_FALSE(group.spawn({"true"}, {.working_directory = "/no/such/directory"}, ec));
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK_FALSE(group.spawn({}, ec));
  CHECK(ec == std::errc::invalid_argument);
  std::ofstream(s / "file") << "precious";
  const stdio beside = stdio::file(s / "file" + std::string("\0", 1) + "other", file_mode::truncate);
  CHECK_FALSE(group.spawn({"true"}, {.out = beside}, ec));
  CHECK(ec == std::errc::invalid_argument);
  CHECK(std::filesystem::file_size(s / "file") == 8);  // what stands before a NUL is not opened
  CHECK_THROWS_AS(auto none = group.spawn({"/no/such/program"}), std::system_error);
  CHECK(group.wait_idle(5s));
  CHECK(group.members().empty());
}

TEST_CASE("streams lead where they are told to") {
  const scene s;
  process_group group;
  child echo = group.spawn(s.words({"echo"}), {.in = stdio::pipe(), .out = stdio::pipe()});
  REQUIRE(::write(echo.in().get(), "hello", 5) == 5);
  echo.in().reset();
  CHECK(read_all(echo.out()) == "hello");
  CHECK(echo.wait().success());

  child both =
      group.spawn(s.words({"write-err=3"}), {.in = stdio::null(), .out = stdio::pipe(), .err = stdio::join_out()});
  CHECK(read_all(both.out()) == "yyy");
  child file = group.spawn(s.words({"write=4"}), {.out = stdio::file(s / "out", file_mode::truncate)});
  CHECK(file.wait().success());
  std::ifstream written(s / "out");
  CHECK(std::string(std::istreambuf_iterator<char>(written), {}) == "xxxx");
}

TEST_CASE("environment and directory are the caller's, with the changes asked for") {
  const scene s;
  process_group group;
  ::setenv("TEST_KEPT", "old", 1);
  ::setenv("TEST_GONE", "old", 1);
  child c = group.spawn(s.words({"show"}),
                        {.environment = {"TEST_NEW=new", "TEST_GONE"}, .working_directory = "/", .out = stdio::pipe()});
  const std::string shown = read_all(c.out());
  CHECK(shown.find("env.TEST_KEPT=old\n") != std::string::npos);
  CHECK(shown.find("env.TEST_NEW=new\n") != std::string::npos);
  CHECK(shown.find("TEST_GONE") == std::string::npos);
  CHECK(shown.find("cwd=/\n") != std::string::npos);
  CHECK(shown.find("fds=0,1,2\n") != std::string::npos);
}

TEST_CASE("terminate ends every kind of child and proves it, and the group goes on") {
  support::canary innocent;
  const scene s;
  process_group group;
  for (int round = 0; round < 2; ++round) {
    std::vector<child> children;
    for (const std::string& words : support::stubborn_children()) {
      children.push_back(group.spawn(s.words(split(words)), {.out = stdio::pipe()}));
      CAPTURE(words);
      REQUIRE(is_ready(children.back()));
    }
    const termination_report report = group.terminate(300ms);
    CAPTURE(report.str());
    CHECK(report.proven_empty);
    CHECK(report.survivors.empty());
    CHECK(report.mechanism == containment::subreaper);
    CHECK(s.empty());
    CHECK(group.members().empty());
    for (child& each : children) CHECK(each.wait_for(0ms));
  }
  CHECK(group.warden_alive());
}

TEST_CASE("the destructor leaves nothing, and no descriptor open") {
  const scene s;
  const int before = support::open_descriptors();
  {
    process_group group({.grace = 200ms});
    for (const char* words : {"sleep", "setsid ignore sleep", "daemon sleep"}) {
      child c = group.spawn(s.words(split(words)), {.out = stdio::pipe()});
      CHECK(is_ready(c));
    }
  }
  CHECK(s.empty());
  CHECK(support::open_descriptors() == before);
}

TEST_CASE("whoever ends within the grace is not killed, and nobody waits longer") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"slow-term=200"}), {.out = stdio::pipe()});
  REQUIRE(is_ready(c));
  const auto start = std::chrono::steady_clock::now();
  group.terminate(10s);
  CHECK(std::chrono::steady_clock::now() - start < 5s);
  CHECK(c.wait().code() == 0);
}

TEST_CASE("what a child starts in answer to the stop signal has the grace for its work") {
  const scene s;
  process_group group;
  child c = group.spawn({"sh", "-c",
                         "trap 'sleep 0.1 && sh -c \"sleep 0.1 && echo inner\" && echo done; exit 7' TERM; echo ready; "
                         "while :; do sleep 0.02; done"},
                        {.out = stdio::pipe()});
  REQUIRE(is_ready(c));
  CHECK(group.terminate(20s).proven_empty);
  CHECK(read_all(c.out()) == "inner\ndone\n");
  CHECK(c.wait().code() == 7);
}

TEST_CASE("a stopped child hears the stop signal too") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"stopped"}), {.out = stdio::pipe()});
  REQUIRE(is_ready(c));
  CHECK(wait_until([&] {
    platform::process_stat facts;
    return platform::read_process_stat(c.id().pid, facts) == 0 && facts.state == 'T';
  }));
  CHECK(group.terminate(10s).proven_empty);
  CHECK(c.wait().signal() == SIGTERM);
}

TEST_CASE("the child of a thread hears the stop signal while its parent stays") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"ignore", "headless", "fork", "slow-term=0"}), {.out = stdio::pipe()});
  REQUIRE(is_ready(c));
  pid_t last = 0;
  for (const process_identity& each : group.members())
    if (each.pid != c.id().pid) last = each.pid;
  REQUIRE(last > 0);
  auto ending = std::async(std::launch::async, [&] { return group.terminate(20s); });
  CHECK(wait_until([&] { return !support::alive(last); }, 10s));
  CHECK(support::alive(c.id().pid));
  c.signal(SIGKILL);
  CHECK(ending.get().proven_empty);
}

TEST_CASE("the owner's death ends everything, whatever kind of child") {
  support::canary innocent;
  const scene s;
  forked owner([&](teller test) {
    process_group group({.grace = 200ms});
    std::vector<child> children;
    for (const std::string& words : support::stubborn_children()) {
      children.push_back(group.spawn(s.words(split(words)), {.out = stdio::pipe()}));
      if (!is_ready(children.back())) return 1;
    }
    test.say("ready");
    for (;;) ::pause();
  });
  REQUIRE(owner.line() == "ready");
  owner.signal(SIGKILL);
  CHECK(owner.wait().signal() == SIGKILL);
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("the name is not free before the last child of a killed owner is dead") {
  const scene s;
  const std::string name = support::unique_name("kept");
  const lock_options options{.directory = s / "locks"};
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  pid_t last = 0;
  forked owner([&](teller test) {
    pid_lockfile lock(name, options);
    process_group group({.grace = 700ms});
    group.keep_locked(lock);
    child c = group.spawn(s.words({"setsid", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (!is_ready(c)) return 1;
    for (const process_identity& each : group.members()) test.say(std::to_string(each.pid));
    test.say("end");
    for (;;) ::pause();
  });
  for (auto line = owner.line(); line && *line != "end"; line = owner.line()) last = std::atoi(line->c_str());
  REQUIRE(last > 0);
  owner.signal(SIGKILL);
  CHECK(owner.wait().signal() == SIGKILL);
  std::error_code ec;
  bool alive_when_taken = false;
  CHECK(wait_until([&] {
    pid_lockfile next(name, options, ec);
    alive_when_taken = support::alive(last);
    if (ec) return false;
    CHECK(next.recovered_from());
    return true;
  }));
  CHECK_FALSE(alive_when_taken);
}

TEST_CASE("the program's own waitpid(-1) sees neither the warden nor the children") {
  const scene s;
  {
    process_group group;
    child c = group.spawn(s.words({"exit=0"}));
    CHECK(c.wait().success());
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
    CHECK(errno == ECHILD);
  }
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(support::children_of(::getpid()).empty());
}
