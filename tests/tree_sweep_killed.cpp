// A start is killed, with its warden, in the middle of ending what the last one left: the start after it ends the rest.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>
#include <instance_guard/lock_status.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <vector>

#include "support/delegated.hpp"
#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/service_cgroup.hpp"
#include "support/stepped_process.hpp"
#include "support/unique_name.hpp"

using namespace support;
using instance_guard::single_instance;

namespace {

/// Where the sweeper is killed: at its `count`th call of that number, with that second argument.
struct point {
  const char* what;
  long number;
  int count = 1;
  long second = -1;   // -1: any
  bool made = false;  // the call: it is killed after it, not before
};

constexpr point among_strays[] = {
    {"before its first record", SYS_pwrite64},
    {"before its record names its warden", SYS_pwrite64, 2},
    {"before one is asked to stop", SYS_pidfd_send_signal, 1, SIGTERM},
    {"before that one is let go on", SYS_pidfd_send_signal, 1, SIGCONT},
    {"before another is asked to stop", SYS_pidfd_send_signal, 2, SIGTERM},
    {"before one is killed", SYS_pidfd_send_signal, 1, SIGKILL},
    {"when one has been killed", SYS_pidfd_send_signal, 1, SIGKILL, true},
    {"before the last is killed", SYS_pidfd_send_signal, 3, SIGKILL},
};
/// The first write is the test's, and what is unlinked first is the list of those who were refused.
constexpr point at_the_group[] = {
    {"before one is killed", SYS_pidfd_send_signal, 1, SIGKILL},
    {"before the kernel is asked", SYS_write, 2},
    {"when the kernel has been asked", SYS_write, 2, -1, true},
    {"before the group is removed", SYS_unlinkat, 2},
    {"when the group has been removed", SYS_unlinkat, 2, -1, true},
    {"before its record says that it is done", SYS_pwrite64, 4},
};

struct setting {
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string name = unique_name("sweep");
  const service_cgroup* place = nullptr;

  /// Leaves strays, and in a group of the kernel's one that is known by nothing else.
  void leave() {
    owner_options options{.arguments = {"grace=50", "guard=" + name, "warden=", "stray.setsid=ignore sleep",
                                        "stray.fork=setsid ignore", "stray.spawn=daemon ignore sleep"},
                          .ready = 3};
    if (place != nullptr) {
      options.arguments.push_back("child=daemon undying ignore renamed cleared closed sleep");
      ++options.ready;
      options.before_exec = [&] { return place->enter(); };
    }
    options.arguments.push_back("pause=");
    owner first(s, options);
    REQUIRE(first.complete());
    kill_both(first.warden(), [&] { first.process().signal(SIGKILL); });
    REQUIRE(first.process().wait());
  }

  /// At once: a warden that is left for a moment would begin to end them.
  static void kill_both(pid_t warden, const std::function<void()>& kill_owner) {
    if (warden > 1) {
      ::kill(warden, SIGSTOP);
      REQUIRE(wait_until([&] { return support::detail::state_of("/proc/" + std::to_string(warden)) == 'T'; }));
    }
    kill_owner();
    if (warden > 1) {
      ::kill(warden, SIGKILL);
      REQUIRE(wait_until([&] { return !alive(warden); }));
    }
  }

  /// The next start, killed there. False: it did not come by.
  bool kill_sweeper(const point& where) {
    stepped_process second([&] {
      if (place != nullptr && !place->enter()) return 1;
      instance_guard::single_instance_options options;
      options.lock.wait = patience;
      std::error_code ec;
      single_instance guard = single_instance::acquire(name, options, ec);
      return ec ? 2 : 3;
    });
    REQUIRE(second.possible());
    int met = 0;
    for (auto call = second.next(); call; call = second.next()) {
      if (*call != where.number || (where.second >= 0 && second.second_argument() != where.second)) continue;
      if (++met < where.count) continue;
      if (where.made && !second.finish_call()) return false;
      const auto holder = instance_guard::query_lock(name).holder;
      const bool has_warden = holder && holder->process.pid == second.pid();
      kill_both(has_warden ? holder->warden.pid : 0, [&] { second.kill(); });
      return true;
    }
    return false;
  }
};

}  // namespace

TEST_CASE("the strays of a killed start end, wherever the one that was ending them is killed as well") {
  for (const point& where : among_strays) {
    const std::string when = where.what;
    CAPTURE(when);
    setting t;
    t.leave();
    CHECK(t.kill_sweeper(where));
    CHECK(!t.s.empty());
    CHECK(next_instance_is_alone(t.s, t.name));
    CHECK(wait_until([&] { return t.s.empty(); }));
  }
}

TEST_CASE("the same with a delegated control group, which alone tells of who has forgotten everything") {
  for (const point& where : at_the_group) {
    const std::string when = where.what;
    CAPTURE(when);
    const delegated place(unique_name("sweep"));
    if (!place.works) return;
    setting t;
    t.place = &place.group;
    t.leave();
    REQUIRE(place.group.below().size() == 1);
    CHECK(t.kill_sweeper(where));
    CHECK(next_instance_is_alone(t.s, t.name));
    CHECK(wait_until([&] { return t.s.empty(); }));
    CHECK(place.nothing_below());
  }
}
