// What /proc shows is believed only where it speaks of the processes that signals reach.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <vector>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;

namespace {

/// True if the caller now has its own mounts, which nobody else sees.
bool own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

}  // namespace

TEST_CASE("numbers from the /proc of another pid namespace end nobody") {
  if (!support::is_root()) return;
  forked outer([&](teller test) {
    if (::unshare(CLONE_NEWPID) != 0) return 77;
    const pid_t init = ::fork();  // process 1 of the namespace, which shows the outer /proc
    if (init == 0) {
      // The bot is number 2, as the parent of all kernel threads is outside; the bystanders have
      // numbers of such threads.
      int go[2], home[2];
      if (::pipe(go) != 0 || ::pipe2(home, O_CLOEXEC) != 0) ::_exit(1);
      const pid_t bot = ::fork();
      if (bot == 0) {
        char byte = 0;
        ::close(home[1]);
        if (::read(go[0], &byte, 1) != 1) ::_exit(1);
        std::error_code ec;
        process_group above = detail::become_child_of_warden({.grace = 50ms}, ec);
        if (!ec) above.terminate(ec);  // while the program lives, so that somebody is looked for
        ::_exit(0);                    // whatever came of it
      }
      std::vector<pid_t> bystanders;
      // The program comes after them: it needs a number that is somebody's outside, or it can't begin.
      const auto is_somebody = [](pid_t number) {
        return ::access(("/proc/" + std::to_string(number)).c_str(), F_OK) == 0;
      };
      for (int i = 0; i < 20 || (i < 200 && !is_somebody(bystanders.back() + 1)); ++i) {
        const pid_t each = ::fork();
        if (each == 0) {
          char byte = 0;
          ::close(home[1]);
          ::_exit(::read(home[0], &byte, 1) == 0 ? 7 : 1);
        }
        bystanders.push_back(each);
      }
      if (::write(go[1], "x", 1) != 1) ::_exit(1);
      int status = 0;
      ::waitpid(bot, &status, 0);
      ::close(home[1]);  // now they may go, by themselves
      for (const pid_t each : bystanders)
        if (::waitpid(each, &status, 0) != each || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
          test.say("a bystander was ended");
      ::_exit(0);  // and with it the namespace
    }
    int status = 0;
    ::waitpid(init, &status, 0);
    return WIFEXITED(status) ? 0 : 1;
  });
  CHECK(outer.line(60s).value_or("nothing") == "nothing");
  const auto status = outer.wait();
  if (status.code() == 77) {
    MESSAGE("no pid namespaces here");
    return;
  }
  CHECK(status.success());
}

TEST_CASE("where /proc is of another pid namespace no group begins, for that reason") {
  if (!support::is_root()) return;
  forked outer([&](teller test) {
    if (::unshare(CLONE_NEWPID) != 0) return 77;
    const pid_t init = ::fork();  // its number is that of a process outside
    if (init == 0) {
      std::error_code ec;
      process_group group({.grace = 50ms}, ec);
      if (ec != std::errc::function_not_supported) test.say(ec.message());
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(init, &status, 0);
    return WIFEXITED(status) ? 0 : 1;
  });
  CHECK(outer.line(60s).value_or("nothing") == "nothing");
  const auto status = outer.wait();
  if (status.code() != 77) CHECK(status.success());
}

TEST_CASE("a /proc that was covered is no proof that nobody is left") {
  if (!support::is_root()) return;
  const scene s;
  forked owner([&](teller test) {
    if (!own_mounts()) return 77;
    process_group group({.grace = 100ms});
    child direct = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
    child gone = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(direct.out()) == 0 || support::await_ready(gone.out()) == 0) return 1;
    if (::mount("none", "/proc", "tmpfs", 0, "") != 0) return 77;
    const termination_report report = group.terminate();
    if (report.proven_empty) test.say("called empty");
    const auto status = direct.wait_for(10s);
    if (!status) test.say("its own child was left alone");
    if (::umount("/proc") != 0) return 1;
    if (!group.terminate().proven_empty) test.say("not ended afterwards");
    return 0;
  });
  CHECK(owner.line(60s).value_or("nothing") == "nothing");
  const auto status = owner.wait();
  if (status.code() != 77) CHECK(status.success());
  CHECK(support::wait_until([&] { return s.empty(); }));
}
