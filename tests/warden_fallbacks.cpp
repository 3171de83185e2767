// Where the kernel refuses something: another way, or an honest error, never a false promise.
#include <doctest/doctest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <instance_guard/process_group.hpp>
#include <string>

#include "support/deny_system_calls.hpp"
#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

/// A whole life of a group, with what is hard to end. Says what is wrong.
int live(const scene& s, teller test) {
  process_group group({.grace = 300ms});
  child c = group.spawn({"/bin/sh", "-c", "exit 5"});
  if (c.wait().code() != 5) test.say("status");
  std::error_code ec;
  if (group.spawn({"/no/such/program"}, ec)) test.say("started nothing");
  if (ec != std::errc::no_such_file_or_directory) test.say("exec error: " + ec.message());
  std::vector<child> children;
  for (const char* words : {"sleep", "setsid ignore sleep", "daemon ignore sleep", "chain=3 sleep", "stopped"}) {
    children.push_back(group.spawn(s.words(support::split(words)), {.out = stdio::pipe()}));
    if (support::await_ready(children.back().out()) == 0) test.say(std::string("not ready: ") + words);
  }
  const termination_report report = group.terminate();
  if (!report.proven_empty) test.say(report.str());
  if (!s.empty()) test.say("left");
  if (!group.warden_alive()) test.say("no warden");
  return 0;
}

void lives_without(std::initializer_list<long> calls, int error) {
  const scene s;
  forked owner([&](teller test) {
    if (!support::deny_system_calls(calls, error)) return 0;
    return live(s, test);
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

}  // namespace

TEST_CASE("without clone3, pidfds or close_range a group keeps its promise") {
  for (const int error : {ENOSYS, EPERM}) {
    CAPTURE(error);
    SUBCASE("clone3") { lives_without({SYS_clone3}, error); }
    SUBCASE("pidfd_open") { lives_without({SYS_pidfd_open, SYS_pidfd_send_signal}, error); }
    SUBCASE("close_range") { lives_without({SYS_close_range}, error); }
    SUBCASE("all of them") {
      lives_without({SYS_clone3, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_close_range}, error);
    }
    SUBCASE("what only makes a child more like its owner") {
      lives_without({SYS_sched_getattr, SYS_sched_setattr, SYS_sched_getaffinity, SYS_sched_setaffinity}, error);
    }
  }
}

TEST_CASE("without pidfds the owner's death is still seen, also beside a copy with its channel") {
  const scene s;
  forked owner([&](teller test) {
    if (!support::deny_system_calls({SYS_pidfd_open}, ENOSYS)) return 1;
    process_group group({.grace = 100ms});
    child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 2;
    const long copy = platform::fork_copy(SIGCHLD);
    if (copy == 0)
      for (;;) ::pause();
    test.say(std::to_string(copy));
    for (;;) ::pause();
    return 0;
  });
  const pid_t copy = std::atoi(owner.line().value_or("0").c_str());
  REQUIRE(copy > 0);
  owner.signal(SIGKILL);
  owner.wait();
  CHECK(wait_until([&] { return s.empty(); }));
  ::kill(copy, SIGKILL);
}

TEST_CASE("without a subreaper there is no group, and the error says so") {
  forked owner([&](teller test) {
    if (!support::deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EINVAL)) return 0;
    std::error_code ec;
    process_group group(ec);
    if (ec != std::errc::function_not_supported) test.say(ec.message());
    if (group) test.say("started");
    if (!support::children_of(::getpid()).empty()) test.say("a warden is left");
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("without /proc there is no group, and the error says so") {
  if (!support::is_root()) return;
  forked owner([&](teller test) {
    // In a mount namespace of its own, so that only this process loses it.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/proc", "tmpfs", 0, nullptr) != 0)
      return 0;
    std::error_code ec;
    process_group group(ec);
    if (ec != std::errc::function_not_supported) test.say(ec.message());
    if (group) test.say("started");
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("with hidepid=2 an ordinary user's group keeps its promise") {
  if (!support::is_root()) return;
  const scene s;
  forked owner([&](teller test) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/proc", "proc", 0, "hidepid=2") != 0 || !support::become(support::nobody))
      return 0;
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // as any program that was started by that user
    return live(s, test);
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("no processes left for the user: the spawn fails, the group lives") {
  if (!support::is_root()) return;
  const scene s;
  forked owner([&](teller test) {
    const uid_t rare = 61'234;  // who runs nothing else
    if (!support::become(rare)) return 1;
    process_group group;
    const rlimit none{1, 1000};
    ::setrlimit(RLIMIT_NPROC, &none);
    process_group other(nullptr);
    std::error_code ec;
    other = process_group(ec);
    if (ec != std::errc::resource_unavailable_try_again) test.say("second group: " + ec.message());
    // The first one's warden has the limit that it was started with.
    if (!group.spawn({"/bin/true"}).wait().success()) test.say("first group");
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}
