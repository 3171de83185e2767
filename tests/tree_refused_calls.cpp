// A kernel that is old, or a sandbox that refuses a system call: the promise is kept by other
// means, or refused with an error. Never a false one.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <string>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <vector>

#include "support/deny_system_calls.hpp"
#include "support/owner.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

struct refusal {
  std::string what;
  std::function<bool()> install;
  bool fallback;  // there is another way; otherwise an error is expected
};

std::function<bool()> without(long call, int error) {
  return [=] { return deny_system_calls({call}, error); };
}

const std::vector<refusal>& refusals() {
  static const std::vector<refusal> list = {
      {"clone3: ENOSYS", without(SYS_clone3, ENOSYS), true},
      {"clone3: EPERM", without(SYS_clone3, EPERM), true},
      {"pidfd_open: ENOSYS", without(SYS_pidfd_open, ENOSYS), true},
      {"pidfd_open: EPERM", without(SYS_pidfd_open, EPERM), true},
      {"pidfd_send_signal: ENOSYS", without(SYS_pidfd_send_signal, ENOSYS), true},
      {"close_range: ENOSYS", without(SYS_close_range, ENOSYS), true},
      {"memfd_create: ENOSYS", without(SYS_memfd_create, ENOSYS), true},
      {"all that is newer than Linux 5.0",
       [] {
         return deny_system_calls(
             {SYS_clone3, SYS_pidfd_open, SYS_close_range, SYS_openat2, SYS_pidfd_getfd, SYS_faccessat2}, ENOSYS);
       },
       true},
      {"subreaper: EINVAL", [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EINVAL); }, false},
      {"subreaper: EPERM", [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EPERM); }, false},
  };
  return list;
}

/// The children of an owner, and how many lines they say. The C library starts no thread where clone3 fails with
/// anything but ENOSYS.
std::size_t add_children(std::vector<std::string>& arguments, const std::string& prefix, const refusal& refused) {
  std::size_t count = 0;
  for (const std::string& words : stubborn_children()) {
    if (refused.what == "clone3: EPERM" && words.starts_with("headless")) continue;
    arguments.push_back(prefix + words);
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("with a system call refused nothing is left all the same, or nothing is promised") {
  for (const refusal& each : refusals())
    for (const std::string end : {"return", "kill"}) {
      CAPTURE(each.what);
      CAPTURE(end);
      scene s({INSTANCE_GUARD_TEST_OWNER});
      owner_options options{.arguments = {"grace=150", "try-group="}};
      options.before_exec = each.install;
      if (each.fallback) options.ready = add_children(options.arguments, "child=", each);
      options.arguments.insert(options.arguments.end(), {"wait-line=", "end=" + end});
      owner o(s, options);
      REQUIRE(o.complete());
      if (each.fallback) o.go_on();
      const auto status = o.process().wait();
      REQUIRE(status);
      if (!each.fallback) CHECK(status->code() == 69);
      else if (end == "kill") CHECK(status->signal() == SIGKILL);
      else CHECK(status->code() == 21);
      CHECK(wait_until([&] { return s.empty(); }));
    }
}

TEST_CASE("run works with a system call refused") {
  for (const refusal& each : refusals()) {
    if (!each.fallback) continue;
    CAPTURE(each.what);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner o(s, {.arguments = {"grace=150", "group=", "run=say=a leave daemon ignore sleep", "end=return"},
                .before_exec = each.install});
    CHECK(o.process().read_until("ran: ") == "ran: exit code 0, a, empty (subreaper)");
    CHECK(o.process().wait()->code() == 21);
    CHECK(s.empty());
  }
}

TEST_CASE("a guard keeps its promise with a system call refused, whatever its reach") {
  for (const refusal& each : refusals())
    for (const std::string reach : {"spawned", "strays", "everything"})
      for (const std::string end : {"return", "kill"}) {
        if (!each.fallback) continue;
        // Nobody may signal the program's own children there before it has gone: it takes the grace and 10 s.
        const bool slow = each.what.starts_with("pidfd_send_signal") && reach == "everything" && end == "return";
        if (slow && rounds(1, 0) == 0) continue;
        CAPTURE(each.what);
        CAPTURE(reach);
        CAPTURE(end);
        scene s({INSTANCE_GUARD_TEST_OWNER});
        const std::string name = unique_name("denied");
        owner_options options{.arguments = {"grace=150", "reach=" + reach, "guard=" + name}};
        options.before_exec = each.install;
        options.ready = add_children(options.arguments, reach == "everything" ? "stray.fork-exec=" : "child=", each);
        options.arguments.insert(options.arguments.end(), {"wait-line=", "end=" + end});
        owner o(s, options);
        REQUIRE(o.complete());
        o.go_on();
        const auto status = o.process().wait();
        REQUIRE(status);
        if (end == "kill") CHECK(status->signal() == SIGKILL);
        else CHECK(status->code() == 21);
        CHECK(next_instance_is_alone(s, name));
        CHECK(wait_until([&] { return s.empty(); }));
      }
}

TEST_CASE("a program that goes on without its guard has no child left, also where pidfds are refused") {
  for (const int error : {ENOSYS, EPERM}) {
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner o(s,
            {.arguments = {"grace=150", "reach=everything", "guard=" + unique_name("denied"), "stray.fork-exec=sleep",
                           "stray.fork-exec=daemon ignore sleep", "stray.fork-exec=setsid ignore sleep",
                           "wait-line=", "release=", "wait-line=", "end=return"},
             .ready = 3,
             .before_exec = without(SYS_pidfd_open, error)});
    REQUIRE(o.complete());
    o.go_on();
    REQUIRE(o.process().read_until("released"));
    for (const found_process& each : helpers_of(s)) FAIL_CHECK("left: " << each.what);
    o.go_on();
    CHECK(o.process().wait()->code() == 21);
  }
}

TEST_CASE("a guard that could not keep its promise does not start, says why, and leaves the name free") {
  for (const refusal& each : refusals())
    for (const std::string reach : {"spawned", "strays", "everything"}) {
      if (each.fallback) continue;
      CAPTURE(each.what);
      CAPTURE(reach);
      scene s({INSTANCE_GUARD_TEST_OWNER});
      const std::string name = unique_name("denied");
      program o = s.start(
          {s.path_of(INSTANCE_GUARD_TEST_OWNER), "grace=150", "reach=" + reach, "guard-or-exit=" + name, "say=runs"},
          {.before_exec = each.install, .merge_err = true});
      const std::string said = o.read_all();
      CAPTURE(said);
      CHECK(said.starts_with(name + ": cannot start: "));
      CHECK(said.find("PR_SET_CHILD_SUBREAPER (exit 73); cure: ") != said.npos);
      CHECK(said.find("runs") == said.npos);
      const auto status = o.wait();
      REQUIRE(status);
      CHECK(status->code() == 73);
      CHECK(wait_until([&] { return s.empty(); }));
      CHECK(next_instance_is_alone(s, name));
    }
}

TEST_CASE("no child runs that could not be told of its warden's death") {
  for (const std::string reach : {"spawned", "strays", "everything"}) {
    CAPTURE(reach);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("denied");
    program o = s.start(
        {s.path_of(INSTANCE_GUARD_TEST_OWNER), "helper=" + s.helper(), "grace=150", "reach=" + reach,
         "guard-or-exit=" + name, "child=sleep", "say=runs"},
        {.before_exec = [] { return deny_system_call_with(SYS_prctl, PR_SET_PDEATHSIG, EPERM); }, .merge_err = true});
    const std::string said = o.read_all();
    CAPTURE(said);
    CHECK(said.find("ready") == said.npos);
    CHECK(said.find("runs") == said.npos);
    const auto status = o.wait();
    REQUIRE(status);
    if (reach == "everything")  // the program itself is the warden's child
      CHECK(status->code() == 73);
    else  // what spawn throws
      CHECK(status->signal() == SIGABRT);
    CHECK(wait_until([&] { return s.empty(); }));
    CHECK(next_instance_is_alone(s, name));
  }
}
