// Many children, long arguments, few descriptors.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <instance_guard/process_group.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/open_descriptors.hpp"
#include "support/read_child.hpp"
#include "support/rounds.hpp"
#include "support/sanitizer.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

TEST_CASE("arguments of a megabyte arrive, and what is too long is refused") {
  const scene s;
  process_group group;
  // Not one long one: the kernel allows 128 KiB each.
  std::vector<std::string> arguments = {"/bin/sh", "-c", "echo $#; for a; do :; done; echo ${#a}", "sh"};
  for (int i = 0; i < 16; ++i) arguments.emplace_back(65'536, 'x');
  child c = group.spawn(arguments, {.out = stdio::pipe()});
  CHECK(support::read_line(c.out()) == "16");
  CHECK(support::read_line(c.out()) == "65536");
  CHECK(c.wait().success());
  // Just around the length from which text travels in another way.
  for (std::size_t size = 60'000; size < 70'000; size += 499) {
    child around = group.spawn({"/bin/sh", "-c", "echo ${#1}", "sh", std::string(size, 'y')},
                               {.clear_environment = true, .out = stdio::pipe()});
    CHECK(support::read_line(around.out()) == std::to_string(size));
  }
  std::error_code ec;
  arguments.resize(4);
  for (int i = 0; i < 100; ++i) arguments.emplace_back(100'000, 'x');
  CHECK_FALSE(group.spawn(arguments, ec));
  CHECK(ec == std::errc::argument_list_too_long);
  CHECK_FALSE(group.spawn({"/bin/true", std::string(200'000, 'x')}, ec));
  CHECK(ec == std::errc::argument_list_too_long);
  std::vector<std::string> many(20'000, "");
  many[0] = "/bin/true";
  CHECK(group.spawn(many).wait().success());
  CHECK(group.spawn({"/bin/true"}).wait().success());
}

TEST_CASE("an owner that may not write files is not ended by long arguments") {
  forked owner([](teller test) {
    process_group group;
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_FSIZE, &none);
    std::error_code ec;
    if (group.spawn({"/bin/true", std::string(100'000, 'x')}, ec)) test.say("started");
    if (ec != std::errc::file_too_large) test.say(ec.message());
    if (!group.spawn({"/bin/true"}).wait().success()) test.say("no short one");
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("3,000 children at once, of an owner that may open 256 files") {
  const int count = support::rounds(3'000, 1'000);
  const scene s;
  forked owner([&](teller test) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 256;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 4'000) return 0;
    process_group group({.grace = 30s});
    for (int i = 0; i < count; ++i) {
      std::error_code ec;
      child c = group.spawn({"/bin/sleep", "100"}, {.environment = {s.mark()}}, ec);
      if (ec) test.say(std::to_string(i) + ": " + ec.message());
      if (ec) return 1;
    }
    if (group.members().size() != static_cast<std::size_t>(count))
      test.say("members " + std::to_string(group.members().size()));
    const termination_report report = group.terminate();
    if (!report.proven_empty) test.say(report.str());
    // Whoever keeps a handle to each runs out of his own descriptors, and is told so.
    std::vector<child> kept;
    std::error_code ec;
    while (!ec && kept.size() < 300)
      kept.push_back(group.spawn({"/bin/sleep", "100"}, {.environment = {s.mark()}}, ec));
    if (ec != std::errc::too_many_files_open) test.say("not too_many_files_open: " + ec.message());
    kept.clear();
    if (!group.spawn({"/bin/true"}).wait().success()) test.say("not usable again");
    return 0;
  });
  CHECK(owner.line(120s).value_or("nothing") == "nothing");
  CHECK(owner.wait(60s).success());
}

TEST_CASE("an owner that may open nothing any more hears of its children, and is done with them at once") {
  for (const bool daemonized : {false, true}) {
    CAPTURE(daemonized);
    if (daemonized && support::always_threaded) continue;
    const scene s;
    REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
    forked owner([&](teller test) {
      single_instance_options options;
      options.lock.directory = s / "locks";
      options.children.grace = 10min;  // who has heard of no end waits for that long
      single_instance guard = single_instance::acquire(support::unique_name("none"), options);
      if (daemonized) guard.daemonize();
      ::alarm(50);  // whoever it is now: ends it, if it waits
      child ended = guard.spawn({"/bin/true"});
      child one = guard.spawn({"/bin/sleep", "100"}, {.environment = {s.mark()}});
      const rlimit none{0, 0};
      ::setrlimit(RLIMIT_NOFILE, &none);
      if (!ended.wait().success()) test.say("not ended");
      if (one.wait_for(20ms)) test.say("ended");
      const std::filesystem::path file = guard.lockfile().path();
      guard.release();
      if (::access(file.c_str(), F_OK) == 0) test.say("the file is there");
      test.say("done");
      return 0;
    });
    auto line = owner.line(60s);
    for (; line && *line != "done"; line = owner.line(60s)) FAIL_CHECK(*line);
    CHECK(line);
    CHECK(owner.wait().success());
    CHECK(s.empty());
  }
}

TEST_CASE("a warden that may open no more says so, and goes on when it can") {
  const scene s;
  forked owner([&](teller test) {
    const rlimit few{48, 48};
    ::setrlimit(RLIMIT_NOFILE, &few);
    process_group group({.grace = 10s});
    std::error_code ec;
    int started = 0;
    for (; started < 100; ++started) {
      child c = group.spawn({"/bin/sleep", "100"}, {.environment = {s.mark()}}, ec);
      if (ec) break;
    }
    if (ec != std::errc::too_many_files_open) test.say("after " + std::to_string(started) + ": " + ec.message());
    if (started < 25) test.say("only " + std::to_string(started));
    if (!group.warden_alive()) test.say("no warden");
    const termination_report report = group.terminate(ec);
    if (ec || !report.proven_empty) test.say("terminate: " + ec.message() + report.str());
    if (!group.spawn({"/bin/true"}).wait().success()) test.say("not usable again");
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("eight threads spawn and wait at once; each status finds its handle, no descriptor is left") {
  const int each = support::rounds(10'000, 800) / 8;
  const scene s;
  const int before = support::open_descriptors();
  {
    process_group group;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < each; ++i) {
          const int code = (t * 31 + i) % 256;
          std::error_code ec;
          child c = group.spawn({"/bin/sh", "-c", "exit " + std::to_string(code)}, ec);
          if (ec || c.wait(ec).code() != code || ec) ++wrong;
        }
      });
    for (std::thread& each_thread : threads) each_thread.join();
    CHECK(wrong == 0);
    CHECK(group.wait_idle(20s));
    CHECK(support::open_descriptors() == before + 1);  // the channel
    // Nor in the warden: its own, and a moment for those that are on their way.
    const std::string fds = "/proc/" + std::to_string(group.warden().pid) + "/fd";
    CHECK(wait_until([&] { return support::detail::numbers_in(fds).size() <= 9; }));
  }
  CHECK(support::open_descriptors() == before);
}

TEST_CASE("SIGCHLD ignored, or no zombies wanted, changes nothing") {
  for (const int how : {0, 1, 2}) {
    forked owner([&](teller test) {
      struct sigaction action = {};
      action.sa_handler = how == 0 ? SIG_IGN : SIG_DFL;
      action.sa_flags = how == 1 ? SA_NOCLDWAIT : 0;
      if (how == 2) action.sa_handler = [](int) { ::waitpid(-1, nullptr, WNOHANG); };
      ::sigaction(SIGCHLD, &action, nullptr);
      process_group group;
      for (int i = 0; i < 20; ++i) {
        child c = group.spawn({"/bin/sh", "-c", "exit " + std::to_string(i)});
        if (c.wait().code() != i) test.say("status " + std::to_string(i));
      }
      if (!group.warden_alive()) test.say("no warden");
      if (!group.terminate().proven_empty) test.say("not empty");
      return 0;
    });
    CHECK(owner.line().value_or("nothing") == "nothing");
    CHECK(owner.wait().success());
  }
}

TEST_CASE("the owner's SIGCHLD handler hears nothing of children and wardens") {
  static std::atomic<int> heard;
  heard = 0;
  struct sigaction action = {}, old = {};
  action.sa_handler = [](int) { ++heard; };
  ::sigaction(SIGCHLD, &action, &old);
  {
    process_group group;
    for (int i = 0; i < 10; ++i) CHECK(group.spawn({"/bin/true"}).wait().success());
    process_group below = group.nested();
    CHECK(below.spawn({"/bin/true"}).wait().success());
  }
  CHECK(heard == 0);
  ::sigaction(SIGCHLD, &old, nullptr);
}

TEST_CASE("groups come and go without a trace") {
  const int before = support::open_descriptors();
  for (int i = 0; i < support::rounds(1'000, 100); ++i) {
    process_group group;
    if (i % 10 == 0) CHECK(group.spawn({"/bin/true"}).wait().success());
  }
  CHECK(support::open_descriptors() == before);
  CHECK(support::children_of(::getpid()).empty());
}

TEST_CASE("when there are no more groups, or descriptors, it says so") {
  std::vector<process_group> groups;
  std::error_code ec;
  while (!ec && groups.size() < 300) groups.emplace_back(ec);
  CHECK(ec == std::errc::resource_unavailable_try_again);
  CHECK(groups.size() == 257);  // the last one is empty
  groups.clear();
  process_group group(ec);
  CHECK_FALSE(ec);
  const int before = support::open_descriptors();
  std::vector<file_descriptor> all;
  for (int next = 0; (next = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all.emplace_back(next);
  CHECK_FALSE(group.spawn({"/bin/true"}, ec));
  CHECK(ec == std::errc::too_many_files_open);
  CHECK_FALSE(process_group(ec));
  CHECK(ec == std::errc::too_many_files_open);
  all.clear();
  CHECK(group.spawn({"/bin/true"}).wait().success());
  CHECK(support::open_descriptors() == before);
}
