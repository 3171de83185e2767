// What holds with POSIX alone (compiled with INSTANCE_GUARD_POSIX_ONLY), and what it does not claim.
#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <instance_guard/instance_guard.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;
using namespace std::chrono_literals;
using namespace instance_guard;

namespace ig = instance_guard::detail;

namespace {

std::vector<std::string> split(std::string_view words) {
  std::vector<std::string> result;
  while (!words.empty()) {
    const std::size_t space = words.find(' ');
    result.emplace_back(words.substr(0, space));
    words = space == words.npos ? std::string_view() : words.substr(space + 1);
  }
  return result;
}

/// A child of the group that has said it is ready; its pid, or that of who said so.
struct ready_child {
  child handle;
  pid_t pid = 0;
};

ready_child start(process_group& group, const scene& s, std::string_view words) {
  ready_child result;
  result.handle = group.spawn(s.words(split(words)), {.environment = {s.mark()}, .out = stdio::pipe()});
  std::string line;
  for (char c = 0; ::read(result.handle.out().get(), &c, 1) == 1 && c != '\n';) line += c;
  if (line.starts_with("ready pid=")) result.pid = static_cast<pid_t>(std::atoi(line.c_str() + 10));
  CHECK(result.pid > 0);
  return result;
}

/// What stays in the process group it was started in.
const std::vector<std::string> in_their_group = {"sleep",          "ignore sleep",  "stopped",
                                                 "chain=10 sleep", "fork sleep",    "ignore stopped",
                                                 "closed sleep",   "cleared sleep", "headless sleep"};

}  // namespace

static_assert(!platform::can_adopt_orphans && !platform::can_inspect_processes && !platform::has_socket_lock);

TEST_CASE("a group ends what stays in the process groups of its children, and does not call that proof") {
  canary stranger;
  scene s;
  process_group group({.grace = 200ms});
  for (int round = 0; round < 2; ++round) {
    std::vector<ready_child> children;
    for (const std::string& words : in_their_group) children.push_back(start(group, s, words));
    const termination_report report = group.terminate();
    CHECK(report.mechanism == containment::process_groups);
    CHECK_FALSE(report.proven_empty);
    CHECK(report.survivors.empty());
    for (const ready_child& each : children) CHECK_FALSE(alive(each.pid));
    CHECK(wait_until([&] { return s.empty(); }));
  }
  CHECK(group.warden_alive());
}

TEST_CASE("what left its process group survives, and nothing says otherwise") {
  scene s;
  pid_t left = 0;
  {
    process_group group({.grace = 100ms});
    left = start(group, s, "setsid sleep").pid;
    CHECK_FALSE(group.terminate().proven_empty);
  }
  CHECK(alive(left));
  s.end();
}

TEST_CASE("what a child leaves in its process group ends with the child") {
  scene s;
  process_group group({.grace = 100ms});
  child c = group.spawn({"sh", "-c", s.helper() + " sleep & sleep 0.2"}, {.environment = {s.mark()}});
  CHECK(c.wait().success());
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("the stop signal is sent once, and who ends within the grace is not killed") {
  scene s;
  process_group group;
  ready_child c = start(group, s, "slow-term=200");
  group.terminate(10s);
  CHECK(c.handle.wait().code() == 0);
}

TEST_CASE("however the owner ends, its children end before the name is free") {
  for (const bool killed : {true, false}) {
    CAPTURE(killed);
    scene s;
    const std::string name = unique_name("posix");
    forked part([&](const teller& tell) {
      single_instance_options options;
      options.children.grace = 300ms;
      auto guard = single_instance::acquire(name, options);
      const ready_child c = start(guard.children(), s, "ignore sleep");
      tell.say(std::to_string(c.pid));
      if (killed)
        for (;;) ::pause();
      guard.release();
      return alive(c.pid) ? 1 : 0;
    });
    const auto line = part.line();
    REQUIRE(line);
    const pid_t pid = static_cast<pid_t>(std::atoi(line->c_str()));
    if (killed) part.signal(SIGKILL);
    else CHECK(part.wait().code() == 0);
    part.wait();
    forked next([&](const teller&) {
      single_instance_options options;
      options.lock.wait = 20s;
      auto guard = single_instance::acquire(name, options);
      if (alive(pid)) return 1;
      return guard.recovered_from().has_value() == killed ? 0 : 2;
    });
    CHECK(next.wait().code() == 0);
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("a second start is refused, and told the pid of the first") {
  const std::string name = unique_name("posix");
  forked first([&](const teller& tell) -> int {
    auto guard = single_instance::acquire(name);
    tell.say("here");
    for (;;) ::pause();
  });
  CHECK(first.line() == "here");
  std::error_code ec;
  const auto second = single_instance::acquire(name, ec);
  CHECK(ec == errc::already_running);
  REQUIRE(second.holder());
  CHECK(second.holder()->process.pid == first.pid());
  first.signal(SIGKILL);
  first.wait();
  single_instance_options options;
  options.lock.wait = 20s;
  auto third = single_instance::acquire(name, options, ec);
  CHECK(!ec);
}

TEST_CASE("run brings back output and status, and ends at its limit") {
  scene s;
  process_group group({.grace = 100ms});
  const run_result result = group.run({"sh", "-c", "cat; echo err >&2; exit 3"}, {.input = "text"});
  CHECK(result.out == "text");
  CHECK(result.err == "err\n");
  CHECK(result.status.code() == 3);
  const run_result late =
      group.run(s.words({"ignore", "sleep"}), {.timeout = 100ms, .process = {.environment = {s.mark()}}});
  CHECK(late.timed_out);
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("an exec that fails is reported with its reason") {
  process_group group;
  std::error_code ec;
  static_cast<void>(group.spawn({"/no/such/program"}, ec));
  CHECK(ec == std::errc::no_such_file_or_directory);
  CHECK(group.spawn({"true"}).wait().success());
}

TEST_CASE("children are started and waited for by many threads at once") {
  process_group group;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k)
        if (group.spawn({"sh", "-c", "exit " + std::to_string(k)}).wait().code() != k) ::abort();
    });
  for (std::thread& each : threads) each.join();
}

TEST_CASE("strays are not looked for: nobody is signalled, and nothing is claimed") {
  std::error_code ec;
  ig::stray_mark mark = ig::make_stray_mark(ec);
  CHECK(!ec);
  CHECK_FALSE(mark.env_set);  // whether there are threads can't be asked
  CHECK(mark.inode == 0);
  CHECK(ig::mark_text(ig::target_of(mark)).empty());
  ig::stray_target target;
  std::copy_n(mark.nonce, sizeof target.nonce, target.nonce);
  const auto memory = std::make_unique<ig::stray_buffers>();
  const auto report = std::make_unique<ig::stray_report>();
  CHECK(ig::strays_signal(target, SIGKILL, *memory, *report) == -ENOSYS);
  CHECK_FALSE(report->conclusive);
  CHECK(report->count == 0);
  ig::remove_stray_mark(mark);
}

TEST_CASE("what the system can't tell is an error, not a guess") {
  process_group group;
  std::error_code ec;
  static_cast<void>(group.members(ec));
  CHECK(ec == std::errc::function_not_supported);
  const process_identity self = process_identity::self();
  CHECK(self.pid == ::getpid());
  CHECK_FALSE(self.complete());
  static_cast<void>(process_handle::open(self, ec));
  CHECK(ec == std::errc::not_supported);
}
