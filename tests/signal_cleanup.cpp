// What a signal does to a process that has a cleanup.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <instance_guard/signal_cleanup.hpp>
#include <thread>

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

// Runs `body` in a child whose dispositions are all default; the wait status.
template <class Body>
int in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) std::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    _exit(body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

bool ended_by(int status, int number) { return WIFSIGNALED(status) && WTERMSIG(status) == number; }
bool exited(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }

void (*disposition(int number))(int) {
  struct sigaction now = {};
  sigaction(number, nullptr, &now);
  return now.sa_handler;
}

bool readable(int descriptor) {
  pollfd entry{descriptor, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE("a signal ends the process by that same signal") {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    const int status = in_child([number] {
      std::error_code ec;
      signal_cleanup cleanup({}, ec);
      raise(number);
      return 0;
    });
    CHECK_MESSAGE(ended_by(status, number), number);
  }
}

TEST_CASE("also when another thread gets it, and while the main thread has it blocked") {
  CHECK(ended_by(in_child([] {
                   std::error_code ec;
                   signal_cleanup cleanup({}, ec);
                   std::thread other([] { pause(); });
                   sigset_t term;
                   sigemptyset(&term);
                   sigaddset(&term, SIGTERM);
                   pthread_sigmask(SIG_BLOCK, &term, nullptr);
                   kill(getpid(), SIGTERM);
                   other.join();
                   return 0;
                 }),
                 SIGTERM));
}

TEST_CASE("an ignored signal stays ignored, a handler of the program stays") {
  CHECK(exited(in_child([] {
                 std::signal(SIGHUP, SIG_IGN);
                 static volatile sig_atomic_t seen = 0;
                 std::signal(SIGTERM, [](int) { seen = 1; });
                 std::error_code ec;
                 {
                   signal_cleanup cleanup({}, ec);
                   raise(SIGHUP);
                   raise(SIGTERM);
                 }
                 return seen == 1 && disposition(SIGHUP) == SIG_IGN && disposition(SIGTERM) != SIG_DFL ? 0 : 1;
               }),
               0));
}

TEST_CASE("the dispositions come back, unless somebody else changed them meanwhile") {
  CHECK(exited(in_child([] {
                 std::error_code ec;
                 void (*const later)(int) = [](int) {};
                 {
                   signal_cleanup one({}, ec);
                   signal_cleanup two({}, ec);
                   signal_cleanup three = std::move(one);
                   if (disposition(SIGTERM) == SIG_DFL) return 1;
                   std::signal(SIGQUIT, later);
                 }
                 if (disposition(SIGTERM) != SIG_DFL || disposition(SIGINT) != SIG_DFL) return 2;
                 return disposition(SIGQUIT) == later ? 0 : 3;
               }),
               0));
}

TEST_CASE("of two cleanups the first to go takes nothing from the other") {
  CHECK(ended_by(in_child([] {
                   std::error_code ec;
                   signal_cleanup stays({}, ec);
                   { signal_cleanup goes({}, ec); }
                   if (disposition(SIGTERM) == SIG_DFL) return 1;
                   raise(SIGTERM);
                   return 0;
                 }),
                 SIGTERM));
}

TEST_CASE("graceful: the first signal requests a stop and wakes whoever waits") {
  CHECK(exited(in_child([] {
                 std::error_code ec;
                 signal_cleanup cleanup({.graceful = true}, ec);
                 if (cleanup.stop_requested() || readable(cleanup.stop_fd())) return 1;
                 if (cleanup.wait_for_stop(1ms)) return 2;
                 std::thread sender([self = getpid()] { kill(self, SIGTERM); });
                 const bool stopped = cleanup.wait_for_stop(20s);
                 sender.join();
                 return stopped && cleanup.stop_requested() && readable(cleanup.stop_fd()) ? 0 : 3;
               }),
               0));
}

TEST_CASE("graceful: a stop that is delivered twice at once is one stop") {
  CHECK(exited(in_child([] {
                 std::error_code ec;
                 signal_cleanup cleanup({.graceful = true}, ec);
                 raise(SIGTERM);
                 raise(SIGTERM);
                 raise(SIGINT);
                 return cleanup.stop_requested() ? 0 : 1;
               }),
               0));
}

TEST_CASE("graceful: a second signal, later, forces") {
  CHECK(ended_by(in_child([] {
                   std::error_code ec;
                   signal_cleanup cleanup({.graceful = true}, ec);
                   raise(SIGTERM);
                   // The rule itself is about time: the second signal must come at least 250 ms after the first.
                   std::this_thread::sleep_for(std::chrono::nanoseconds(detail::second_signal_after));
                   raise(SIGINT);
                   return 0;
                 }),
                 SIGINT));
}

TEST_CASE("a program can request the stop itself, and a new guard starts without it") {
  CHECK(exited(in_child([] {
                 std::error_code ec;
                 {
                   signal_cleanup cleanup({.graceful = true}, ec);
                   cleanup.request_stop();
                   if (!cleanup.wait_for_stop(0ms) || !readable(cleanup.stop_fd())) return 1;
                 }
                 signal_cleanup next({.graceful = true}, ec);
                 return next.stop_requested() || readable(next.stop_fd()) ? 2 : 0;
               }),
               0));
}

TEST_CASE("before it is armed a signal just ends the process, also a graceful one") {
  CHECK(ended_by(in_child([] {
                   std::error_code ec;
                   signal_cleanup cleanup{nullptr};
                   cleanup.install({.graceful = true}, ec);
                   raise(SIGTERM);
                   return 0;
                 }),
                 SIGTERM));
}

TEST_CASE("a forked child is ended by the signal, and does not stop its parent") {
  CHECK(exited(in_child([] {
                 std::error_code ec;
                 signal_cleanup cleanup({.graceful = true}, ec);
                 const pid_t child = fork();
                 if (child == 0) {
                   raise(SIGTERM);
                   _exit(0);
                 }
                 int status = -1;
                 waitpid(child, &status, 0);
                 if (!ended_by(status, SIGTERM)) return 1;
                 return cleanup.stop_requested() || readable(cleanup.stop_fd()) ? 2 : 0;
               }),
               0));
}

TEST_CASE("a number that is no signal, or can't be handled, changes nothing") {
  CHECK(exited(in_child([] {
                 for (const int number : {0, -1, 65, 1000, SIGKILL, SIGSTOP}) {
                   std::error_code ec;
                   signal_cleanup cleanup({.signals = {SIGTERM, number}}, ec);
                   if (ec != std::errc::invalid_argument || cleanup) return 1;
                   if (disposition(SIGTERM) != SIG_DFL) return 2;
                 }
                 return 0;
               }),
               0));
}

TEST_CASE("the stop descriptor is never one of the standard streams") {
  CHECK(exited(in_child([] {
                 for (const int stream : {0, 1, 2}) close(stream);
                 std::error_code ec;
                 signal_cleanup cleanup({}, ec);
                 return !ec && cleanup.stop_fd() > 2 && detail::the_stop.write_end > 2 ? 0 : 1;
               }),
               0));
}
