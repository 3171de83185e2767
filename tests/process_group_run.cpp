// process_group::run: a command from start to end, with everything it started.
#include <instance_guard/process_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::patience;
using support::scene;

namespace {

using words = std::vector<std::string>;

/// A scene, and a group in this process whose children carry its mark.
struct stage {
  scene s;
  process_group group{{.grace = 300ms}};

  run_result run(words list, run_options options = {}) {
    options.process.environment.push_back(s.mark());
    return group.run(s.words(std::move(list)), options);
  }
};

std::string contents(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("run brings back what was said and how it ended") {
  stage t;
  const run_result result = t.run({"write=3", "write-err=2", "exit=7"});
  CHECK(result.status.code() == 7);
  CHECK(result.out == "xxx");
  CHECK(result.err == "yy");
  CHECK_FALSE(result.timed_out);
  CHECK_FALSE(result.truncated);
  CHECK(result.ended.proven_empty);
  CHECK(t.run({"signal=15"}).status.signal() == SIGTERM);
}

TEST_CASE("what a command left behind has ended when run returns") {
  stage t;
  for (const words& left : {words{"say=a", "leave", "sleep"}, words{"say=a", "daemon", "ignore", "sleep"},
                            words{"say=a", "leave", "setsid", "closed", "cleared", "sleep"},
                            words{"say=a", "leave", "stopped"}, words{"say=a", "leave", "fan=20", "sleep"}}) {
    CAPTURE(left[2]);
    const run_result result = t.run(left);
    CHECK(t.s.empty());
    CHECK(result.status.success());
    CHECK(result.out.starts_with("a\n"));
    CHECK(result.ended.proven_empty);
    CHECK(result.ended.survivors.empty());
  }
}

TEST_CASE("what forks and ends all the time is ended, or named, and ended by the group's end") {
  scene s;
  {
    process_group group({.grace = 50ms});
    const run_result result = group.run(s.words({"say=a", "leave", "runner=2"}));
    CHECK(result.out.starts_with("a\n"));
    CHECK(result.ended.proven_empty != !result.ended.survivors.empty());
  }
  CHECK(support::wait_until([&] { return s.empty(); }));
}

TEST_CASE("a command that ends at once is not held up by the grace of its group") {
  stage t;
  process_group patient({.grace = 60s});
  const auto start = std::chrono::steady_clock::now();
  CHECK(patient.run(t.s.words({"exit=0"})).status.success());
  CHECK(patient.run(t.s.words({"say=a", "leave", "sleep"})).out.starts_with("a\n"));
  CHECK(std::chrono::steady_clock::now() - start < patience);
}

TEST_CASE("a command that takes too long is ended with its subtree, and what it said is kept") {
  stage t;
  const run_result result = t.run({"write=5", "fork", "ignore", "sleep"}, {.timeout = 1s});
  CHECK(t.s.empty());
  CHECK(result.timed_out);
  CHECK(result.out.starts_with("xxxxx"));
  CHECK(result.status.signal() == SIGTERM);
  CHECK(result.ended.proven_empty);
}

TEST_CASE("a flood is cut at the limit and ends at the time limit") {
  stage t;
  const run_result result = t.run({"write=1000000000000", "exit=0"}, {.timeout = 1s, .max_output = 1000});
  CHECK(result.timed_out);
  CHECK(result.truncated);
  CHECK(result.out.size() == 1000);
}

TEST_CASE("input goes in whole, and a command that does not want it harms nobody") {
  stage t;
  const std::string input(2'000'000, 'i');
  const run_result echoed = t.run({"echo"}, {.input = input});
  CHECK(echoed.status.success());
  CHECK(echoed.out == input);
  CHECK(t.run({"exit=3"}, {.input = input}).status.code() == 3);
}

TEST_CASE("without input stdin is /dev/null, and both outputs are pipes") {
  stage t;
  const std::string out = t.run({"show"}).out;
  CHECK(out.find("\nfd.0=/dev/null\n") != out.npos);
  CHECK(out.find("\nfd.1=pipe:") != out.npos);
  CHECK(out.find("\nfd.2=pipe:") != out.npos);
  CHECK(out.find("\nfds=0,1,2\n") != out.npos);
}

TEST_CASE("streams that the caller directs go where they were sent") {
  stage t;
  const std::string path = t.s / "out";
  CHECK(t.run({"write=4", "exit=0"}, {.process = {.out = stdio::file(path, file_mode::truncate)}}).out.empty());
  CHECK(contents(path) == "xxxx");
  t.run({"write=2", "exit=0"}, {.process = {.out = stdio::file(path, file_mode::append)}});
  CHECK(contents(path) == "xxxxxx");
  CHECK(t.run({"write=1", "write-err=1", "write=1", "exit=0"}, {.process = {.err = stdio::join_out()}}).out == "xyx");
  CHECK(t.run({"echo"}, {.process = {.in = stdio::file(path, file_mode::read)}}).out == "xxxxxx");
  CHECK(t.run({"write-err=1", "exit=0"}, {.process = {.err = stdio::null()}}).err.empty());
}

TEST_CASE("the callback sees every byte, in the thread that called run") {
  stage t;
  std::size_t seen = 0;
  bool elsewhere = false;
  const auto me = std::this_thread::get_id();
  const auto look = [&](std::string_view piece) {
    seen += piece.size();
    elsewhere = elsewhere || std::this_thread::get_id() != me;
  };
  const run_result result = t.run({"write=300000", "exit=0"}, {.on_output = look});
  CHECK(seen == 300'000);
  CHECK_FALSE(elsewhere);
  CHECK(result.out.empty());
}

TEST_CASE("an exception of the callback leaves run, and leaves nothing behind") {
  stage t;
  CHECK_THROWS_WITH(t.run({"write=1", "fork", "daemon", "ignore", "sleep"},
                          {.on_output = [](std::string_view) { throw std::runtime_error("no"); }}),
                    "no");
  CHECK(t.s.empty());
  CHECK(t.run({"exit=0"}).status.success());
}

TEST_CASE("a command that can't be started is an error, not a result") {
  stage t;
  std::error_code ec;
  t.group.run({"/no/such/program"}, ec);
  CHECK(ec == std::errc::no_such_file_or_directory);
  t.group.run({t.s / ""}, ec);
  CHECK(ec == std::errc::permission_denied);
  t.group.run({}, ec);
  CHECK(ec == std::errc::invalid_argument);
  CHECK_THROWS_AS(t.group.run({"/no/such/program"}), std::system_error);
  CHECK(t.s.empty());
}

TEST_CASE("the end of a run leaves the group's other children alone") {
  stage t;
  child other = t.group.spawn(t.s.words({"sleep"}), {.environment = {t.s.mark()}, .out = stdio::null()});
  CHECK(t.run({"say=a", "leave", "sleep"}).status.success());
  CHECK(t.run({"sleep"}, {.timeout = 50ms}).timed_out);
  CHECK_FALSE(other.wait_for(0ms));
  CHECK(t.group.terminate().proven_empty);
  CHECK(other.wait().signal() == SIGTERM);
}

TEST_CASE("terminate() ends a run in another thread") {
  stage t;
  std::atomic<bool> begun = false;
  run_result result;
  std::thread runner([&] {
    std::error_code ec;
    run_options options{.on_output = [&](std::string_view) { begun = true; }};
    options.process.environment = {t.s.mark()};
    result = t.group.run(t.s.words({"setsid", "sleep"}), options, ec);
  });
  CHECK(support::wait_until([&] { return begun.load(); }));
  CHECK(t.group.terminate().proven_empty);
  runner.join();
  CHECK(t.s.empty());
  CHECK_FALSE(result.status.success());
}

TEST_CASE("runs in eight threads at once keep their outputs apart") {
  stage t;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        std::error_code ec;
        const std::string text = std::to_string(i) + "/" + std::to_string(round);
        const words command = t.s.words({"say=" + text, "exit=" + std::to_string(i)});
        const run_result result = t.group.run(command, run_options{.timeout = 60s}, ec);
        if (ec || result.out != text + "\n" || result.status.code() != i) ++wrong;
      }
    });
  for (std::thread& each : threads) each.join();
  CHECK(wrong == 0);
}

TEST_CASE("a hundred runs leave no descriptor and no process behind") {
  stage t;
  t.run({"exit=0"});
  const int descriptors = support::open_descriptors();
  const std::size_t children = support::children_of(::getpid()).size();
  for (int i = 0; i < 100; ++i) t.run({"write=1", "exit=0"}, {.input = "x"});
  CHECK(support::open_descriptors() == descriptors);
  CHECK(support::wait_until([&] { return support::children_of(::getpid()).size() <= children; }));
}
