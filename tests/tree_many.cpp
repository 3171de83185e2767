// Many children, many threads, large arguments: each status at its own handle, nothing leaked.
#include <instance_guard/process_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ostream>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::scene;

namespace {

void in_threads(int count, const auto& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& each : threads) each.join();
}

/// A soft limit for the time of a test.
class soft_limit {
 public:
  soft_limit(__rlimit_resource which, rlim_t limit) : which_(which) {
    ::getrlimit(which_, &before_);
    rlimit now = before_;
    now.rlim_cur = limit;
    ::setrlimit(which_, &now);
  }
  soft_limit(const soft_limit&) = delete;
  soft_limit& operator=(const soft_limit&) = delete;
  ~soft_limit() { ::setrlimit(which_, &before_); }

 private:
  __rlimit_resource which_;
  rlimit before_ = {};
};

}  // namespace

TEST_CASE("eight threads spawn and wait at once: each status at its own handle, nothing leaked") {
  scene s;
  const int children = support::rounds(10'000, 800);
  std::atomic<int> wrong = 0;
  const int before = support::open_descriptors();
  {
    process_group group;
    in_threads(8, [&](int thread) {
      for (int i = thread; i < children; i += 8) {
        std::error_code ec;
        child each = group.spawn(s.words({"exit=" + std::to_string(i % 256)}), ec);
        if (ec || each.wait(ec).code() != i % 256 || ec) ++wrong;
      }
    });
  }
  CHECK(wrong == 0);
  CHECK(support::open_descriptors() == before);
}

TEST_CASE("threads of their own groups, started and ended at once, don't meet") {
  scene s;
  std::atomic<int> wrong = 0;
  const int before = support::open_descriptors();
  in_threads(8, [&](int thread) {
    for (int i = 0; i < support::rounds(50, 10); ++i) {
      std::error_code ec;
      process_group group({.grace = 100ms}, ec);
      if (ec) {
        ++wrong;
        continue;
      }
      child one = group.spawn(s.words({"exit=" + std::to_string(thread)}), ec);
      group.spawn(s.words({"setsid", "sleep"}), {.out = stdio::null()}, ec);
      if (one.wait(ec).code() != thread) ++wrong;
      if (!group.terminate(ec).proven_empty) ++wrong;
    }
  });
  CHECK(wrong == 0);
  CHECK(support::open_descriptors() == before);
  CHECK(s.empty());
}

TEST_CASE("three thousand children live at once under a soft limit of 256 descriptors") {
  scene s;
  rlimit processes{};
  ::getrlimit(RLIMIT_NPROC, &processes);
  const int count = support::rounds(3000, 500);
  if (processes.rlim_cur != RLIM_INFINITY && processes.rlim_cur < 4096u) return;
  soft_limit few(RLIMIT_NOFILE, 256);
  {
    process_group group({.grace = 5s});
    int failed = 0;
    for (int i = 0; i < count; ++i) {
      std::error_code ec;
      group.spawn(s.words({"sleep"}), {.out = stdio::null()}, ec);
      if (ec) ++failed;
    }
    CHECK(failed == 0);
    CHECK(group.members().size() == static_cast<std::size_t>(count));
    CHECK(group.terminate().proven_empty);
  }
  CHECK(s.empty());
}

TEST_CASE("an owner at its descriptor limit is told so, and goes on afterwards") {
  scene s;
  process_group group;
  {
    soft_limit none(RLIMIT_NOFILE, 3);
    std::error_code ec;
    group.spawn(s.words({"exit=0"}), ec);
    CHECK(ec == std::errc::too_many_files_open);
  }
  CHECK(group.spawn(s.words({"exit=4"})).wait().code() == 4);
}

TEST_CASE("a megabyte of arguments arrives whole, what is too long for execve is an error") {
  scene s;
  process_group group;
  std::vector<std::string> arguments = {"/bin/sh", "-c", "echo $# ${#8}", "sh"};
  for (int i = 0; i < 10; ++i) arguments.emplace_back(100'000, static_cast<char>('a' + i));
  CHECK(group.run(arguments).out == "10 100000\n");
  std::error_code ec;
  group.spawn({"/bin/true", std::string(1'000'000, 'x')}, ec);  // one argument: 128 KiB at most
  CHECK(ec == std::errc::argument_list_too_long);
  arguments.resize(4);
  for (int i = 0; i < 200; ++i) arguments.emplace_back(100'000, 'x');
  group.spawn(arguments, ec);
  CHECK(ec == std::errc::argument_list_too_long);
  CHECK(group.run({"/bin/echo", "fine"}).out == "fine\n");
}

TEST_CASE("an exec that hangs holds up neither the others nor the end") {
  scene s;
  const std::string slow = s / "slow";
  std::filesystem::copy_file(s.helper(), slow);
  support::program holder = s.start(s.words({"lease=" + slow}));
  if (!holder.read_until("ready")) return;  // a file system without leases
  const auto start = std::chrono::steady_clock::now();
  {
    process_group group({.grace = 100ms});
    std::thread hanging([&] {
      std::error_code ec;
      child never = group.spawn({slow, "exit=0"}, ec);
      if (!ec) CHECK(never.wait().signalled());
    });
    CHECK(support::wait_until([&] { return group.members().size() == 1; }));
    CHECK(group.spawn(s.words({"exit=3"})).wait().code() == 3);
    CHECK(group.terminate().proven_empty);
    hanging.join();
  }
  CHECK(std::chrono::steady_clock::now() - start < 20s);
  holder.signal(SIGKILL);
  holder.wait();
}
