// What can't be ended is named, and holds up nobody else.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <instance_guard/process_group.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

TEST_CASE("another user's process is named, everybody else ends") {
  if (!support::is_root() || ::access("/usr/bin/setpriv", X_OK) != 0) return;
  const scene s;
  const std::string become_root = s / "become_root";
  std::filesystem::copy_file("/usr/bin/setpriv", become_root);
  REQUIRE(::chmod(become_root.c_str(), 04755) == 0);
  forked owner([&](teller test) {
    if (!support::become(support::nobody)) return 1;
    process_group group({.grace = 100ms});
    child risen = group.spawn({become_root, "--reuid=0", s.helper(), "sleep"}, {.out = stdio::pipe()});
    const pid_t pid = support::await_ready(risen.out());
    if (pid == 0) return 0;  // a file system without setuid
    child other = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(other.out()) == 0) return 2;
    const auto start = std::chrono::steady_clock::now();
    const termination_report report = group.terminate();
    if (std::chrono::steady_clock::now() - start > 5s) test.say("took too long");
    if (report.proven_empty) test.say("called empty");
    if (report.survivors.size() != 1) test.say("survivors: " + report.str());
    for (const survivor& each : report.survivors) {
      if (each.process.pid != pid || each.why != survival::other_user) test.say(report.str());
      if (each.process != process_identity::of(pid)) test.say("another identity");
    }
    if (support::processes_with(s.helper()).size() > 1) test.say("others are left");
    if (!group.spawn({"/bin/true"}).wait().success()) test.say("not usable again");
    if (group.wait_idle(50ms)) test.say("called idle");
    test.say("pid " + std::to_string(pid));
    return 0;
  });
  for (auto line = owner.line(30s); line; line = owner.line()) {
    if (line->starts_with("pid ")) ::kill(std::atoi(line->c_str() + 4), SIGKILL);
    else FAIL_CHECK(*line);
  }
  CHECK(owner.wait().success());
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("with no_new_privileges there is no such process") {
  if (!support::is_root() || ::access("/usr/bin/setpriv", X_OK) != 0) return;
  const scene s;
  const std::string become_root = s / "become_root";
  std::filesystem::copy_file("/usr/bin/setpriv", become_root);
  REQUIRE(::chmod(become_root.c_str(), 04755) == 0);
  forked owner([&](teller) {
    if (!support::become(support::nobody)) return 1;
    process_group group({.grace = 100ms, .no_new_privileges = true});
    child risen = group.spawn({become_root, "--reuid=0", s.helper(), "sleep"}, {.err = stdio::null()});
    return risen.wait().success() ? 2 : 0;
  });
  CHECK(owner.wait().success());
}

TEST_CASE("the name stays taken while such a process lives, and is free when it has ended") {
  if (!support::is_root() || ::access("/usr/bin/setpriv", X_OK) != 0) return;
  const scene s;
  const std::string become_root = s / "become_root", name = support::unique_name("risen");
  std::filesystem::copy_file("/usr/bin/setpriv", become_root);
  REQUIRE(::chmod(become_root.c_str(), 04755) == 0);
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  REQUIRE(::chown((s / "locks").c_str(), support::nobody, support::nobody) == 0);
  forked owner([&](teller test) {
    if (!support::become(support::nobody)) return 1;
    pid_lockfile lock(name, {.directory = s / "locks"});
    process_group group({.grace = 100ms});
    group.keep_locked(lock);
    child risen = group.spawn({become_root, "--reuid=0", s.helper(), "sleep"}, {.out = stdio::pipe()});
    test.say(std::to_string(support::await_ready(risen.out())));
    for (;;) ::pause();
    return 0;
  });
  const pid_t pid = std::atoi(owner.line().value_or("0").c_str());
  if (pid == 0) return;
  owner.signal(SIGKILL);
  owner.wait();
  forked next([&](teller test) {
    if (!support::become(support::nobody)) return 1;
    std::error_code ec;
    const lock_options options{.directory = s / "locks", .cleanup_wait = 700ms};
    pid_lockfile lock(name, options, ec);
    if (ec != errc::still_cleaning_up) test.say("not still_cleaning_up: " + ec.message());
    const std::string what = "left: pid " + std::to_string(pid) + " (";
    const std::string& told = lock.explanation();
    if (told.find(what) == std::string::npos || told.find(", another user's)") == std::string::npos)
      test.say("told: " + told);
    // The facade says so, too: here for a log.
    const auto text = detail::refusal_text(name, name, ec, lock.holder(), "", 75, false);
    if (text.find(what) == std::string::npos) test.say("told: " + text);
    test.say("tried");
    lock = pid_lockfile(name, {.directory = s / "locks", .cleanup_wait = 20s}, ec);
    if (ec) test.say(ec.message());
    return 0;
  });
  CHECK(next.line().value_or("nothing") == "tried");
  CHECK(support::alive(pid));
  ::kill(pid, SIGKILL);
  CHECK(next.line().value_or("nothing") == "nothing");
  CHECK(next.wait().success());
}

TEST_CASE("one that a debugger holds is named") {
  const scene s;
  process_group group({.grace = 100ms});
  child held = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
  const pid_t pid = support::await_ready(held.out());
  child other = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(other.out()) > 0);
  forked debugger([&](teller test) {
    if (::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return 1;
    test.say("holds");
    for (;;) ::pause();
    return 0;
  });
  if (!debugger.line()) return;  // not allowed here
  const termination_report report = group.terminate();
  CHECK_FALSE(report.proven_empty);
  REQUIRE(report.survivors.size() == 1);
  CHECK(report.survivors[0].process.pid == pid);
  CHECK(report.survivors[0].why == survival::traced);
  debugger.signal(SIGKILL);
  debugger.wait();
  CHECK(held.wait().signalled());
  CHECK(group.terminate().proven_empty);
}
