// The program's own children, its SIGCHLD and its waits are its own: the group neither sees nor
// disturbs them, whatever the program does with them.
#include <instance_guard/process_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ostream>
#include <string>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "support/forked.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;

namespace {

volatile std::sig_atomic_t children_signals = 0;

void set_sigchld(void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ::sigaction(SIGCHLD, &action, nullptr);
}

/// Everything that a group does, once. 0 if all is as it should be.
int use_a_group(const scene& s) {
  process_group group({.grace = 100ms});
  if (group.spawn(s.words({"exit=5"})).wait().code() != 5) return 1;
  if (group.spawn(s.words({"signal=9"})).wait().signal() != SIGKILL) return 2;
  const run_result result = group.run(s.words({"say=a", "daemon", "ignore", "sleep"}));
  if (!result.out.starts_with("a\n") || !result.ended.proven_empty) return 3;
  process_group inner = group.nested({.grace = 100ms});
  inner.spawn(s.words({"setsid", "sleep"}), {.out = stdio::null()});
  if (!inner.terminate().proven_empty) return 4;
  group.spawn(s.words({"stopped"}), {.out = stdio::null()});
  if (!group.terminate().proven_empty) return 5;
  return s.empty() ? 0 : 6;
}

}  // namespace

TEST_CASE("a group works whatever the program does with SIGCHLD") {
  const struct {
    const char* what;
    void (*handler)(int);
    int flags;
  } ways[] = {{"ignored", SIG_IGN, 0},
              {"no zombies", SIG_DFL, SA_NOCLDWAIT},
              {"handled", [](int) { children_signals = children_signals + 1; }, 0},
              {"handler that waits for any child",
               [](int) {
                 while (::waitpid(-1, nullptr, WNOHANG) > 0) {
                 }
               },
               SA_RESTART}};
  for (const auto& way : ways) {
    CAPTURE(std::string(way.what));
    scene s;
    forked part([&](teller) {
      set_sigchld(way.handler, way.flags);
      return use_a_group(s);
    });
    CHECK(part.wait().code() == 0);
  }
}

TEST_CASE("a group works beside a thread that waits for any child all the time") {
  scene s;
  forked part([&](teller) {
    std::atomic<bool> over = false;
    std::thread waiter([&] {
      while (!over) {
        while (::waitpid(-1, nullptr, __WALL | WNOHANG) > 0) {
        }
        ::usleep(200);
      }
    });
    const int result = use_a_group(s);
    over = true;
    waiter.join();
    return result;
  });
  CHECK(part.wait().code() == 0);
}

TEST_CASE("no SIGCHLD comes from a group") {
  scene s;
  forked part([&](teller) {
    set_sigchld([](int) { children_signals = children_signals + 1; }, 0);
    const int result = use_a_group(s);
    return result != 0 ? result : 100 + children_signals;
  });
  CHECK(part.wait().code() == 100);
}

TEST_CASE("a handler that runs every millisecond, without SA_RESTART, changes nothing") {
  forked program([](teller) {
    const scene s;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    const itimerval often = {{0, 1'000}, {0, 1'000}};
    if (::setitimer(ITIMER_REAL, &often, nullptr) != 0) return 77;
    for (int round = 0; round < 3; ++round)
      if (const int result = use_a_group(s); result != 0) return result;
    return 0;
  });
  CHECK(program.wait().code() == 0);
}

TEST_CASE("a child that kills its process group leaves the warden and the others alone") {
  const scene s;
  process_group group({.grace = 100ms});
  child other = group.spawn(s.words({"sleep"}));
  CHECK(group.spawn({"sh", "-c", "kill -9 0"}).wait().signal() == SIGKILL);
  CHECK(group.spawn({"sh", "-c", "kill -9 -$$"}).wait().signal() == SIGKILL);
  CHECK(group.warden_alive());
  CHECK_FALSE(other.wait_for(0ms));
  CHECK(group.terminate().proven_empty);
}

TEST_CASE("with every signal blocked or ignored a child begins as after fork and exec") {
  scene s;
  forked part([&](teller) {
    sigset_t all;
    sigfillset(&all);
    ::sigprocmask(SIG_BLOCK, &all, nullptr);
    return use_a_group(s) == 0 ? 0 : 1;
  });
  // SIGTERM is blocked in the children too: the grace passes, then SIGKILL ends them.
  CHECK(part.wait().code() == 0);
}

TEST_CASE("children that the program forks by itself stay its own") {
  scene s;
  forked part([&](teller) {
    process_group group({.grace = 100ms});
    const pid_t own = ::fork();
    if (own == 0) {
      for (;;) ::pause();
    }
    if (!group.terminate().proven_empty) return 1;
    { process_group other; }
    if (::waitpid(own, nullptr, WNOHANG) != 0) return 2;  // lives
    ::kill(own, SIGKILL);
    int status = 0;
    if (::waitpid(-1, &status, 0) != own || !WIFSIGNALED(status)) return 3;
    return ::waitpid(-1, nullptr, 0) == -1 && errno == ECHILD ? 0 : 4;
  });
  CHECK(part.wait().code() == 0);
}
