// group_options::keep_session and inherit_descriptors, spawn_options::same_process_group: a child
// that is to a terminal, and to whoever signals the owner's process group, as the owner itself.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/process_group.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/wait_until.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::scene;
using support::wait_until;

namespace {

/// A number of /proc/<pid>/stat: 0 is the process group, 1 the session.
long stat_number(pid_t pid, int which) {
  const std::string stat = support::detail::contents("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t end = stat.rfind(')');
  if (end == stat.npos) return -1;
  std::size_t at = end + 4;  // behind ") S "
  for (int i = 0; i <= which; ++i) at = stat.find(' ', at) + 1;
  return std::strtol(stat.c_str() + at, nullptr, 10);
}

constexpr group_options with_terminal = {.keep_session = true};

}  // namespace

TEST_CASE("warden and children stay in the owner's session; the warden leaves the process group") {
  const scene s;
  process_group group(with_terminal);
  CHECK(::getsid(group.warden().pid) == ::getsid(0));
  CHECK(::getpgid(group.warden().pid) == group.warden().pid);
  child leader = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(leader.out()) > 0);
  CHECK(stat_number(leader.id().pid, 0) == leader.id().pid);
  CHECK(stat_number(leader.id().pid, 1) == ::getsid(0));
  child member = group.spawn(s.words({"sleep"}), {.out = stdio::pipe(), .same_process_group = true});
  REQUIRE(support::await_ready(member.out()) > 0);
  CHECK(stat_number(member.id().pid, 0) == ::getpgrp());
  CHECK(stat_number(member.id().pid, 1) == ::getsid(0));
}

TEST_CASE("whatever is done to a child in the owner's process group, its neighbours live") {
  // They share the process group of this test, as the parts of a pipeline do.
  const support::canary neighbour;
  REQUIRE(::getpgid(const_cast<support::canary&>(neighbour).pid()) == ::getpgrp());
  const scene s;
  for (const char* tree : {"sleep", "ignore sleep", "fork ignore sleep", "fork setsid sleep", "stopped"}) {
    CAPTURE(tree);
    process_group group({.grace = 20ms, .keep_session = true});
    child c = group.spawn(s.words(support::split(tree)), {.out = stdio::pipe(), .same_process_group = true});
    REQUIRE(support::await_ready(c.out()) > 0);
    c.signal(SIGUSR2);
    CHECK(group.terminate().proven_empty);
  }
  {
    process_group group(with_terminal);
    child c = group.spawn(s.words({"fork", "sleep"}), {.out = stdio::pipe(), .same_process_group = true});
    REQUIRE(support::await_ready(c.out()) > 0);
    c.signal(SIGKILL);
    CHECK(c.wait().signal() == SIGKILL);
  }
}

TEST_CASE("a signal to a child in the owner's process group reaches it alone") {
  const scene s;
  process_group group(with_terminal);
  child c = group.spawn(s.words({"fork", "sleep"}), {.out = stdio::pipe(), .same_process_group = true});
  REQUIRE(support::await_ready(c.out()) > 0);
  REQUIRE(group.members().size() == 2);
  c.signal(SIGTERM);
  CHECK(c.wait().signal() == SIGTERM);
  CHECK(group.members().size() == 1);
}

TEST_CASE("a signal that the warden was sent just now is not passed on: all were sent it") {
  const scene s;
  process_group group(with_terminal);
  child c = group.spawn(s.words({"sleep"}), {.out = stdio::pipe(), .same_process_group = true});
  REQUIRE(support::await_ready(c.out()) > 0);
  ::kill(group.warden().pid, SIGUSR1);
  c.signal(SIGUSR1);
  CHECK_FALSE(c.wait_for(50ms));
  // Later it is one of its own.
  std::error_code ec;
  CHECK(wait_until([&] { return c.signal(SIGUSR1, ec), c.wait_for(0ms).has_value(); }));
  CHECK(c.wait().signal() == SIGUSR1);
}

TEST_CASE("a child in the owner's process group that stops tells so, and how it ended later") {
  const scene s;
  process_group group({.grace = 20ms, .keep_session = true});
  child c = group.spawn(s.words({"sleep"}), {.out = stdio::pipe(), .same_process_group = true});
  REQUIRE(support::await_ready(c.out()) > 0);
  CHECK(c.take_stop() == 0);
  for (const int number : {SIGSTOP, SIGTSTP, SIGTTIN}) {
    c.signal(number);
    pollfd entry = {c.exit_fd(), POLLIN, 0};
    REQUIRE(::poll(&entry, 1, 20'000) == 1);
    CHECK(c.take_stop() == number);
    CHECK(c.take_stop() == 0);
    c.signal(SIGCONT);
  }
  // Not taken note of: it is no end.
  c.signal(SIGSTOP);
  CHECK_FALSE(c.wait_for(50ms));
  c.signal(SIGKILL);
  CHECK(c.wait().signal() == SIGKILL);
}

TEST_CASE("the end of the owner ends a child in its process group, and nobody else there") {
  const scene s;
  auto neighbour = s.start(s.words({"sleep"}));
  REQUIRE(neighbour.read_until("ready"));
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t owner = ::fork();
  REQUIRE(owner >= 0);
  if (owner == 0) {
    process_group group({.grace = 20ms, .keep_session = true});
    child c = group.spawn(s.words({"fork", "setsid", "ignore", "sleep"}),
                          {.environment = {s.mark()}, .out = stdio::descriptor(ready[1]), .same_process_group = true});
    for (;;) ::pause();
  }
  ::close(ready[1]);
  const file_descriptor out(ready[0]);
  REQUIRE(support::await_ready(out) > 0);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  CHECK(wait_until([&] { return s.processes().size() == 1; }));
  CHECK_FALSE(neighbour.ended());
}

TEST_CASE("children inherit the owner's descriptors at their numbers, and no others") {
  const scene s;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const file_descriptor read_end(::fcntl(ends[0], F_DUPFD_CLOEXEC, 300)), write_end(ends[1]);
  ::close(ends[0]);
  const file_descriptor open(::dup2(write_end.get(), 9));
  {
    process_group group({.inherit_descriptors = true});
    child c = group.spawn({"sh", "-c", "echo through >&9; ls /proc/self/fd"}, {.out = stdio::pipe()});
    const std::string listed = support::read_all(c.out());
    CHECK(c.wait().success());
    CHECK(support::read_line(read_end) == "through");
    CHECK(("\n" + listed).find("\n9\n") != std::string::npos);
    CHECK(("\n" + listed).find("\n" + std::to_string(read_end.get()) + "\n") == std::string::npos);
    process_group without;
    CHECK_FALSE(without.spawn({"sh", "-c", "echo through 2>/dev/null >&9"}).wait().success());
  }
}
