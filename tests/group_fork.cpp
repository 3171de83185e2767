// fork in a program that has groups.
#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <instance_guard/process_group.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/open_descriptors.hpp"
#include "support/read_child.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

TEST_CASE("a forked copy of the owner has no group, and its end changes nothing") {
  const scene s;
  process_group group;
  child c = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
  REQUIRE(support::await_ready(c.out()) > 0);
  forked copy([&](teller test) {
    std::error_code ec;
    if (group.spawn({"/bin/true"}, ec)) test.say("spawned");
    if (ec != std::errc::invalid_argument) test.say(ec.message());
    if (group.warden_alive()) test.say("has a warden");
    group.terminate(ec);
    c.signal(SIGKILL, ec);
    if (!ec) test.say("signalled");
    process_group own;  // it may have one of its own
    if (!own.spawn({"/bin/true"}).wait().success()) test.say("own group");
    process_group moved = std::move(group);
    detail::groups_goodbye_all();
    return 0;
  });
  CHECK(copy.line().value_or("nothing") == "nothing");
  CHECK(copy.wait().success());
  CHECK_FALSE(c.wait_for(50ms));
  CHECK(group.spawn({"/bin/true"}).wait().success());
}

TEST_CASE("forks beside spawning threads keep no channel open") {
  const scene s;
  process_group group;
  std::atomic<bool> end = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      while (!end) CHECK(group.spawn({"/bin/true"}).wait().success());
    });
  for (int i = 0; i < support::rounds(200, 30); ++i) {
    // What a copy has beyond what every process of this test has: sockets.
    forked copy([&](teller test) {
      int sockets = 0;
      for (const pid_t number : support::detail::numbers_in("/proc/self/fd")) {
        char target[64] = {};
        const std::string path = "/proc/self/fd/" + std::to_string(number);
        if (::readlink(path.c_str(), target, sizeof target - 1) > 0 && std::string(target).starts_with("socket:"))
          ++sockets;
      }
      // The ends of answers that are waited for are there (three threads), nothing else.
      if (sockets > 3) test.say(std::to_string(sockets));
      return 0;
    });
    CHECK(copy.line().value_or("nothing") == "nothing");
  }
  end = true;
  for (std::thread& each : threads) each.join();
}

TEST_CASE("copies that were made behind the library's back hold up no spawn") {
  std::atomic<bool> end = false;
  std::vector<pid_t> copies;
  std::thread forking([&] {
    // A fork that runs no handlers copies whatever is open at the moment.
    while (!end && copies.size() < 2000) {
      const auto copy = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
      if (copy == 0)
        for (;;) ::syscall(SYS_pause);
      if (copy > 0) copies.push_back(copy);
    }
  });
  process_group group;
  for (int i = 0; i < support::rounds(2000, 200); ++i) CHECK(group.spawn({"/bin/true"}).wait().success());
  std::error_code ec;
  CHECK_FALSE(group.spawn({"/no/such/program"}, ec));
  CHECK(ec == std::errc::no_such_file_or_directory);
  end = true;
  forking.join();
  for (const pid_t each : copies) {
    ::kill(each, SIGKILL);
    ::waitpid(each, nullptr, 0);
  }
}

TEST_CASE("forks in another thread while groups start and end") {
  std::atomic<bool> end = false;
  std::thread forking([&] {
    while (!end) {
      const pid_t copy = ::fork();
      if (copy == 0) ::_exit(0);
      ::waitpid(copy, nullptr, 0);
    }
  });
  for (int i = 0; i < support::rounds(300, 40); ++i) {
    process_group group;
    CHECK(group.spawn({"/bin/true"}).wait().success());
  }
  end = true;
  forking.join();
  CHECK(support::children_of(::getpid()).empty());
}

TEST_CASE("a group that is started from a thread survives the end of that thread") {
  const scene s;
  std::unique_ptr<process_group> group;
  child c;
  std::thread starter([&] {
    group = std::make_unique<process_group>();
    c = group->spawn(s.words({"sleep"}), {.out = stdio::pipe()});
    CHECK(support::await_ready(c.out()) > 0);
  });
  starter.join();
  CHECK_FALSE(c.wait_for(100ms));
  CHECK(group->warden_alive());
  CHECK(group->spawn({"/bin/true"}).wait().success());
}

TEST_CASE("a small stack is enough") {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 64 << 10);
  pthread_t thread{};
  REQUIRE(::pthread_create(
              &thread, &attributes,
              [](void*) -> void* {
                process_group group;
                CHECK(group.spawn({"/bin/true"}).wait().success());
                CHECK(group.terminate().proven_empty);
                return nullptr;
              },
              nullptr) == 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
}

TEST_CASE("SIGKILL at any moment of starting a group and a child leaves nothing") {
  const scene s;
  for (int i = 0; i < support::rounds(500, 60); ++i) {
    forked owner([&](teller test) {
      test.say("go");
      process_group group({.grace = 20ms});
      child c = group.spawn(s.words({"daemon", "ignore", "sleep"}));
      for (;;) ::pause();
      return 0;
    });
    CHECK(owner.line());
    ::usleep(static_cast<unsigned>(i) * 2'654'435'761u % 3'000);
    owner.signal(SIGKILL);
    owner.wait();
  }
  CHECK(wait_until([&] { return s.empty(); }));
}
