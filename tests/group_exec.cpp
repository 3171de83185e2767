// An owner that executes another program: the group ends, what that program starts is none of it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <instance_guard/single_instance.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/has_slept.hpp"
#include "support/read_child.hpp"
#include "support/sanitizer.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

/// Starts a helper that loses its parent at once, as a daemon does.
bool start_orphan(const scene& s, const std::string& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  const pid_t shell = ::fork();
  if (shell == 0) {
    ::dup2(ends[1], 1);
    ::execl("/bin/sh", "sh", "-c", (s.helper() + " " + words + " &").c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  const file_descriptor from(ends[0]);
  return ::waitpid(shell, nullptr, 0) == shell && support::await_ready(from) > 0;
}

}  // namespace

TEST_CASE("the children of the program that the owner has become are left alone") {
  const scene s;
  const std::string name = support::unique_name("exec");
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  forked owner([&](teller test) {
    single_instance_options options;
    options.children.grace = 300ms;
    options.lock.directory = s / "locks";
    single_instance guard = single_instance::acquire(name, options);
    child c = guard.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    test.say("ready");
    // Each of its children is there for a moment; one that was ended by a signal is told.
    ::execl("/bin/sh", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 || exit 9; done; exit 25", nullptr);
    return 1;
  });
  CHECK(owner.line() == "ready");
  CHECK(owner.wait(60s).code() == 25);
  CHECK(support::wait_until([&] { return s.empty(); }));
}

TEST_CASE("with reach::everything the orphans of before end, those of the program that it has become are left" *
          doctest::skip(support::always_threaded)) {
  const scene s;
  const std::string name = support::unique_name("exec");
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  // It starts nobody before the warden has noticed that it is another program, and ended those of before.
  REQUIRE(::mkfifo((s / "go").c_str(), 0600) == 0);
  std::ofstream(s / "script") << "read line < " << (s / "go") << "\nsleep 0.02 || exit 9\n"
                              << s.helper() << " daemon sleep >/dev/null\nexit 25\n";
  forked owner([&](teller test) {
    single_instance_options options{.ends = reach::everything};
    options.children.grace = 100ms;
    options.lock.directory = s / "locks";
    single_instance guard = single_instance::acquire(name, options);
    if (!start_orphan(s, "sleep") || !start_orphan(s, "daemon undying ignore cleared sleep")) return 1;
    child c = guard.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 2;
    test.say("ready");
    ::execl("/bin/sh", "sh", (s / "script").c_str(), nullptr);
    return 3;
  });
  CHECK(owner.line() == "ready");
  CHECK(wait_until([&] { return support::processes_with(s.helper()).empty(); }));
  // It looks again after at most 250 ms, until it has seen that nobody is left.
  CHECK(wait_until([&] { return support::has_slept(owner.pid(), 300ms); }));
  std::ofstream(s / "go") << std::endl;
  CHECK(owner.wait().code() == 25);
  // The warden has ended by now: who is left stays. While a daemon loses its parents, one look may miss it.
  CHECK(wait_until([&] { return support::processes_with(s.helper()).size() == 1; }));
  s.end();
}
