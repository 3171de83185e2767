// The pump alone, with a plain child process: run() as a whole is tested in process_group_run.cpp.
#include <instance_guard/detail/run_capture.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <stdexcept>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using instance_guard::detail::run_capture;
using support::scene;

namespace {

/// One command with its three pipes.
struct rig {
  rig(const scene& s, std::vector<std::string> words) : process(make(s, std::move(words))) {
    ::close(err_write);
    exit_fd.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0)));
  }
  support::program make(const scene& s, std::vector<std::string> words) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    err.reset(ends[0]);
    err_write = ends[1];
    return s.start(s.words(std::move(words)), {.before_exec = [this] { return ::dup2(err_write, 2) == 2; }});
  }
  /// False if it took longer than options.timeout.
  bool pump(const run_options& options) {
    run_capture capture(options, result, process.in(), process.out(), err);
    std::error_code ec;
    const bool ended = capture.pump(exit_fd.get(), detail::deadline(options.timeout), ec);
    CHECK_FALSE(ec);
    capture.drain();
    return ended;
  }

  file_descriptor err;
  int err_write = -1;
  support::program process;
  file_descriptor exit_fd;
  run_result result;
};

bool sigpipe_pending() {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  return sigismember(&pending, SIGPIPE) == 1;
}

}  // namespace

TEST_CASE("both streams are read at once, to their ends") {
  scene s;
  rig r(s, {"write=300000", "write-err=200000", "write=1", "exit=0"});
  CHECK(r.pump({}));
  CHECK(r.result.out == std::string(300'001, 'x'));
  CHECK(r.result.err == std::string(200'000, 'y'));
  CHECK_FALSE(r.result.truncated);
}

TEST_CASE("input larger than a pipe comes back whole") {
  scene s;
  std::string input;
  for (int i = 0; i < 300'000; ++i) input += std::to_string(i);
  rig r(s, {"echo"});
  CHECK(r.pump({.input = input}));
  CHECK(r.result.out == input);
}

TEST_CASE("without input stdin is at its end") {
  scene s;
  rig r(s, {"until-eof"});
  CHECK(r.pump({.timeout = 20s}));
}

TEST_CASE("a command that does not read its input does not end the program") {
  scene s;
  rig r(s, {"exit=5"});
  CHECK(r.pump({.input = std::string(1'000'000, 'i')}));
  CHECK(r.process.wait()->code() == 5);
  CHECK_FALSE(sigpipe_pending());
}

TEST_CASE("a SIGPIPE that was pending before stays pending, the mask stays as it was") {
  sigset_t pipe_signal, before, after;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  raise(SIGPIPE);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  ::close(ends[0]);
  CHECK(detail::write_without_sigpipe(ends[1], "x", 1) == -1);
  CHECK(errno == EPIPE);
  CHECK(sigpipe_pending());
  int taken = 0;
  sigwait(&pipe_signal, &taken);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  CHECK(detail::write_without_sigpipe(ends[1], "x", 1) == -1);
  CHECK_FALSE(sigpipe_pending());
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  CHECK(sigismember(&after, SIGPIPE) == 0);
  ::close(ends[1]);
}

TEST_CASE("what is beyond the limit is read, dropped and reported") {
  scene s;
  rig r(s, {"write=1000000", "write-err=10", "exit=0"});
  CHECK(r.pump({.timeout = 20s, .max_output = 1000}));
  CHECK(r.result.out == std::string(1000, 'x'));
  CHECK(r.result.err == std::string(10, 'y'));
  CHECK(r.result.truncated);
}

TEST_CASE("output exactly at the limit is not truncated") {
  scene s;
  rig r(s, {"write=1000", "exit=0"});
  CHECK(r.pump({.max_output = 1000}));
  CHECK(r.result.out.size() == 1000);
  CHECK_FALSE(r.result.truncated);
}

TEST_CASE("the time limit holds against silence and against a flood") {
  scene s;
  rig silent(s, {"sleep"});
  CHECK_FALSE(silent.pump({.timeout = 50ms}));
  rig flood(s, {"write=100000000000", "exit=0"});
  CHECK_FALSE(flood.pump({.timeout = 1s, .max_output = 10}));
  CHECK(flood.result.truncated);
  silent.process.signal(SIGKILL);
  flood.process.signal(SIGKILL);
}

TEST_CASE("a grandchild that holds the pipes keeps nobody waiting") {
  scene s;
  rig r(s, {"say=started", "leave", "sleep"});
  CHECK(r.pump({.timeout = 20s}));
  CHECK(r.result.out.starts_with("started\n"));
  s.end();
}

TEST_CASE("pieces go to the callback as they come, and are not kept") {
  scene s;
  std::size_t seen = 0;
  rig r(s, {"write=500000", "write-err=3", "exit=0"});
  const auto count = [&](std::string_view piece) { seen += piece.size(); };
  CHECK(r.pump({.max_output = 10, .on_output = count}));
  CHECK(seen == 500'000);
  CHECK(r.result.out.empty());
  CHECK(r.result.err == "yyy");
  CHECK_FALSE(r.result.truncated);
}

TEST_CASE("what the callback throws comes through") {
  scene s;
  rig r(s, {"write=10", "sleep"});
  const auto refuse = [](std::string_view) { throw std::runtime_error("enough"); };
  CHECK_THROWS_WITH(r.pump({.on_output = refuse}), "enough");
  r.process.signal(SIGKILL);
}
