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
#include "support/scene.hpp"

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
         return deny_system_calls({SYS_clone3, SYS_pidfd_open, SYS_close_range, SYS_openat2,
                                   SYS_pidfd_getfd, SYS_faccessat2},
                                  ENOSYS);
       },
       true},
      {"subreaper: EINVAL",
       [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EINVAL); }, false},
      {"subreaper: EPERM",
       [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EPERM); }, false},
  };
  return list;
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
      if (each.fallback) {
        for (const std::string& words : stubborn_children()) {
          // The C library starts no thread where clone3 fails with anything but ENOSYS.
          if (each.what == "clone3: EPERM" && words.starts_with("headless")) continue;
          options.arguments.push_back("child=" + words);
          ++options.ready;
        }
      }
      options.arguments.insert(options.arguments.end(), {"wait-line=", "end=" + end});
      owner o(s, options);
      REQUIRE(o.complete());
      if (each.fallback) o.go_on();
      const auto status = o.process().wait();
      REQUIRE(status);
      if (!each.fallback)
        CHECK(status->code() == 69);
      else if (end == "kill")
        CHECK(status->signal() == SIGKILL);
      else
        CHECK(status->code() == 21);
      CHECK(wait_until([&] { return s.empty(); }));
    }
}

TEST_CASE("run works with a system call refused") {
  for (const refusal& each : refusals()) {
    if (!each.fallback) continue;
    CAPTURE(each.what);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner o(s, {.arguments = {"grace=150", "group=", "run=say=a leave daemon ignore sleep",
                              "end=return"},
                .before_exec = each.install});
    CHECK(o.process().read_until("ran: ") == "ran: exit code 0, a, empty (subreaper)");
    CHECK(o.process().wait()->code() == 21);
    CHECK(s.empty());
  }
}
