// A child is as if the owner had started it at that moment.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <instance_guard/process_group.hpp>
#include <string>
#include <thread>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using support::forked;
using support::read_all;
using support::scene;
using support::teller;
using support::value_of;

namespace {

/// What a child of the group has inherited.
std::string show(process_group& group, const scene& s, spawn_options options = {}) {
  options.out = stdio::pipe();
  child c = group.spawn(s.words({"show"}), options);
  return read_all(c.out());
}

/// Runs a part of the test in a process that it may change for good; the messages of what was
/// wrong are checked here.
template <class Part>
void in_another_process(Part part) {
  forked other([&](teller test) {
    part([&](bool good, const std::string& what) {
      if (!good) test.say(what);
    });
    test.say("end");
    return 0;
  });
  for (auto line = other.line(); line != "end"; line = other.line()) {
    REQUIRE(line);
    FAIL_CHECK(*line);
  }
  CHECK(other.wait().success());
}

}  // namespace

TEST_CASE("umask, limits, niceness, processors and directory are the owner's at the call") {
  const scene s;
  in_another_process([&](auto check) {
    process_group group;
    ::umask(027);
    rlimit limit{100, 200};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    limit = {1 << 20, 1 << 21};
    ::setrlimit(RLIMIT_STACK, &limit);
    ::setpriority(PRIO_PROCESS, 0, 7);
    cpu_set_t processors;
    CPU_ZERO(&processors);
    CPU_SET(0, &processors);
    ::sched_setaffinity(0, sizeof processors, &processors);
    check(::chdir("/usr") == 0, "chdir");
    const std::string shown = show(group, s);
    check(value_of(shown, "umask") == "027", "umask " + value_of(shown, "umask"));
    check(value_of(shown, "limit.nofile") == "100:200", "nofile " + value_of(shown, "limit.nofile"));
    check(value_of(shown, "limit.stack") == "1048576:2097152", "stack " + value_of(shown, "limit.stack"));
    check(value_of(shown, "nice") == "7", "nice " + value_of(shown, "nice"));
    std::uint64_t scheduling[6] = {48};  // struct sched_attr; the fourth word is the slice
    if (::syscall(SYS_sched_getattr, 0, scheduling, sizeof scheduling, 0) == 0)
      check(value_of(shown, "slice") == std::to_string(scheduling[3]), "slice " + value_of(shown, "slice"));
    check(value_of(shown, "affinity") == "0", "affinity " + value_of(shown, "affinity"));
    check(value_of(shown, "cwd") == "/usr", "cwd " + value_of(shown, "cwd"));
    check(value_of(shown, "pdeathsig") == "9", "pdeathsig " + value_of(shown, "pdeathsig"));
  });
}

TEST_CASE("ignored and blocked signals are the caller's, and nothing else is") {
  const scene s;
  in_another_process([&](auto check) {
    ::signal(SIGUSR1, SIG_IGN);
    process_group group;
    ::signal(SIGHUP, SIG_IGN);
    ::signal(SIGUSR1, SIG_DFL);
    ::signal(SIGTERM, [](int) {});  // a handler can't be passed on
    ::signal(SIGCHLD, SIG_IGN);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
    const auto bit = [](int number) { return std::uint64_t{1} << (number - 1); };
    const std::string shown = show(group, s);
    const auto ignored = std::strtoull(value_of(shown, "status.SigIgn").c_str(), nullptr, 16);
    const auto masked = std::strtoull(value_of(shown, "status.SigBlk").c_str(), nullptr, 16);
    check(ignored == (bit(SIGHUP) | bit(SIGCHLD)), "ignored " + value_of(shown, "status.SigIgn"));
    check(masked == bit(SIGUSR2), "blocked " + value_of(shown, "status.SigBlk"));
  });
}

TEST_CASE("a thread's own niceness, processors and mask count") {
  const scene s;
  in_another_process([&](auto check) {
    process_group group;
    const int own = ::getpriority(PRIO_PROCESS, 0);
    const std::string higher = std::to_string(std::min(own + 5, 19));
    std::thread other([&] {
      ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), std::min(own + 5, 19));
      sigset_t blocked;
      sigemptyset(&blocked);
      sigaddset(&blocked, SIGUSR1);
      ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
      const std::string shown = show(group, s);
      check(value_of(shown, "nice") == higher, "nice " + value_of(shown, "nice"));
      check(value_of(shown, "status.SigBlk") == "0000000000000200", "mask " + value_of(shown, "status.SigBlk"));
    });
    other.join();
    const std::string shown = show(group, s);
    check(value_of(shown, "nice") == std::to_string(own), "nice of the main thread " + value_of(shown, "nice"));
  });
}

TEST_CASE("a child has 0, 1 and 2 and no other descriptor, also of an owner that has none of them") {
  const scene s;
  in_another_process([&](auto check) {
    const int leak = ::open("/", O_RDONLY);  // without O_CLOEXEC, and not the child's business
    check(leak >= 0, "open");
    ::close(0);
    ::close(2);
    process_group group;
    process_group second;
    std::string shown = show(group, s);
    check(value_of(shown, "fds") == "0,1,2", "fds " + value_of(shown, "fds"));
    check(value_of(shown, "fd.0") == "/dev/null", "fd 0 " + value_of(shown, "fd.0"));
    check(value_of(shown, "fd.2") == "/dev/null", "fd 2 " + value_of(shown, "fd.2"));
    ::close(1);
    shown = show(second, s);
    check(value_of(shown, "fds") == "0,1,2", "fds of the second " + value_of(shown, "fds"));
    check(value_of(shown, "fd.0") == "/dev/null", "fd 0 of the second " + value_of(shown, "fd.0"));
    // Nothing of the library may lie where the program's own streams belong.
    for (int i = 0; i < 3; ++i) check(::fcntl(i, F_GETFD) < 0, "a descriptor in the place of a stream");
  });
}

TEST_CASE("a directory that is gone, or may not be read, is still the child's") {
  const scene s;
  REQUIRE(::mkdir((s / "here").c_str(), 0711) == 0);
  in_another_process([&](auto check) {
    process_group group;
    check(::chdir((s / "here").c_str()) == 0, "chdir");
    check(::chmod(".", 0100) == 0, "chmod");
    if (support::is_root()) check(::chown(".", support::nobody, support::nobody) == 0, "chown");
    std::string shown = show(group, s);
    check(value_of(shown, "cwd") == s / "here", "cwd " + value_of(shown, "cwd"));
    check(::rmdir((s / "here").c_str()) == 0, "rmdir");
    child c = group.spawn({"/bin/true"});
    check(c.wait().success(), "true in a deleted directory");
  });
}

TEST_CASE("no_new_privileges reaches every child") {
  const scene s;
  process_group group({.no_new_privileges = true});
  CHECK(value_of(show(group, s), "status.NoNewPrivs") == "1");
  process_group below = group.nested();
  CHECK(value_of(show(below, s), "status.NoNewPrivs") == "1");
  process_group plain;
  CHECK(value_of(show(plain, s), "status.NoNewPrivs") == "0");
}
