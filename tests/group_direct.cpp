// reach::everything: the program starts its children by itself, without asking the warden. What holds
// for children that a warden starts holds for these.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;
using support::wait_until;

namespace {

process_group become() {
  std::error_code ec;
  process_group group = detail::become_child_of_warden({.grace = 200ms}, ec);
  if (ec) throw std::system_error(ec, "become");
  return group;
}

/// Runs `part(group, test)` in a program with a warden above it; what it says are complaints. A
/// sanitizer may have a thread of its own in every process: then this can't be, see group_everything.
template <class Part>
void in_program(Part part) {
  forked program([&](teller test) {
    if (!platform::has_one_thread()) return 77;
    process_group group = become();
    part(group, test);
    return 0;
  });
  const std::string complaint = program.line().value_or("nothing");
  CHECK(complaint == "nothing");
  const int code = program.wait().code();
  CHECK((code == 0 || code == 77));
}

/// What a shell prints. (What run() starts is in a group of its own, and so another warden's.)
std::string shell(process_group& group, const std::string& script, spawn_options options = {}) {
  options.out = stdio::pipe();
  child c = group.spawn({"/bin/sh", "-c", script}, options);
  const std::string told = support::read_all(c.out());
  c.wait();
  return told;
}

volatile sig_atomic_t handled = 0;

}  // namespace

TEST_CASE("the warden is their parent, and no process comes between") {
  in_program([](process_group& group, teller test) {
    child c = group.spawn({"/bin/sh", "-c", "read line; exit 5"}, {.in = stdio::pipe()});
    platform::process_stat facts;
    if (platform::read_process_stat(c.id().pid, facts) != 0) test.say("not there");
    if (facts.parent != ::getppid()) test.say("another parent");
    if (facts.start_time != c.id().start_time) test.say("another start time");
    c.in().reset();
    if (c.wait().code() != 5) test.say("status " + c.wait().str());
    if (::waitpid(-1, nullptr, WNOHANG | __WALL) != -1 || errno != ECHILD) test.say("seen by waitpid");
  });
}

TEST_CASE("each status arrives at its own handle, however fast they end, with threads") {
  in_program([](process_group& group, teller test) {
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
      threads.emplace_back([&group, &wrong, t] {
        for (int i = 0; i < 40; ++i) {
          const int code = (t * 40 + i) % 200;
          std::error_code ec;
          child c = group.spawn({"/bin/sh", "-c", "exit " + std::to_string(code)}, {}, ec);
          if (ec || c.wait(ec).code() != code || ec) ++wrong;
        }
      });
    for (std::thread& each : threads) each.join();
    if (wrong != 0) test.say(std::to_string(wrong) + " wrong");
  });
}

TEST_CASE("an exec that fails is reported with its reason") {
  const scene s;
  in_program([&](process_group& group, teller test) {
    std::error_code ec;
    if (group.spawn({"/nonexistent/program"}, {}, ec)) test.say("started");
    if (ec != std::errc::no_such_file_or_directory) test.say(ec.message());
    if (group.spawn({"/etc/passwd"}, {}, ec)) test.say("started");
    if (ec != std::errc::permission_denied) test.say(ec.message());
    if (group.spawn({"/bin/true"}, {.working_directory = "/nonexistent"}, ec)) test.say("started");
    if (ec != std::errc::no_such_file_or_directory) test.say(ec.message());
    if (!group.wait_idle(10s)) test.say("not idle");
  });
}

TEST_CASE("streams lead where they are told to, also crosswise and where the program has none") {
  in_program([](process_group& group, teller test) {
    child crossed =
        group.spawn({"/bin/sh", "-c", "echo out; echo err >&2"}, {.out = stdio::pipe(), .err = stdio::pipe()});
    if (support::read_all(crossed.out()) != "out\n" || support::read_all(crossed.err()) != "err\n") test.say("pipes");
    crossed.wait();
    // Their descriptors are those of the streams, the other way round.
    int one[2], two[2];
    if (::pipe2(one, O_CLOEXEC) != 0 || ::pipe2(two, O_CLOEXEC) != 0) test.say("no pipes");
    const int saved[2] = {::fcntl(1, F_DUPFD_CLOEXEC, 10), ::fcntl(2, F_DUPFD_CLOEXEC, 10)};
    ::dup2(one[1], 1);
    ::dup2(two[1], 2);
    child c = group.spawn({"/bin/sh", "-c", "echo out; echo err >&2"},
                          {.out = stdio::descriptor(2), .err = stdio::descriptor(1)});
    c.wait();
    ::dup2(saved[0], 1);
    ::dup2(saved[1], 2);
    ::close(one[1]), ::close(two[1]);
    const file_descriptor first(one[0]), second(two[0]);
    if (support::read_all(first) != "err\n" || support::read_all(second) != "out\n") test.say("crossed");
    for (int number = 0; number < 3; ++number) ::close(number);
    child bare = group.spawn({"/bin/sh", "-c", "test -c /proc/self/fd/0 -a -c /proc/self/fd/1 -a -c /proc/self/fd/2"});
    if (bare.wait().code() != 0) test.say("closed streams");
  });
}

TEST_CASE("no other descriptor of the program reaches them") {
  in_program([](process_group& group, teller test) {
    const int open_to_all = ::open("/etc/passwd", O_RDONLY);  // without O_CLOEXEC
    const std::string seen = shell(group, "for each in /proc/$$/fd/*; do readlink $each; done");
    if (open_to_all < 0 || seen.find("passwd") != std::string::npos) test.say("leaked: " + seen);
    if (seen.find("socket") != std::string::npos) test.say("a channel: " + seen);
  });
}

TEST_CASE("attributes are those of the calling thread, and rights that it has given up") {
  in_program([](process_group& group, teller test) {
    ::umask(027);
    rlimit limit = {321, 321};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    if (::chdir("/usr") != 0) test.say("chdir");
    ::signal(SIGUSR2, SIG_IGN);
    std::string told;
    std::thread([&] { told = shell(group, "umask; ulimit -n; pwd; grep SigIgn /proc/self/status"); }).join();
    if (told.find("0027\n321\n/usr\n") != 0) test.say(told);
    if (told.find("SigIgn:\t0000000000000800") == std::string::npos) test.say("ignored: " + told);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) test.say("prctl");
    if (shell(group, "grep NoNewPrivs /proc/self/status") != "NoNewPrivs:\t1\n") test.say("privileges");
    if (::geteuid() != 0) return;
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) test.say("setuid");
    if (shell(group, "id -u") != "65534\n") test.say("another user");
  });
}

TEST_CASE("a signal before the exec runs no handler of the program in the child, and ends it") {
  const scene s;
  const std::string path = s / "hanging";
  std::filesystem::copy_file("/bin/true", path);
  support::program holder = s.start(s.words({"lease=" + path}));  // the kernel waits for it to give way
  REQUIRE(holder.read_until("ready"));
  in_program([&](process_group& group, teller test) {
    ::signal(SIGUSR1, [](int) { handled = 1; });
    std::thread sender([&] {
      wait_until([&] { return group.members().size() == 1; });
      const auto members = group.members();
      if (members.size() != 1 || ::kill(members.front().pid, SIGUSR1) != 0) test.say("not sent");
    });
    std::error_code ec;
    child c = group.spawn({path}, {}, ec);
    sender.join();
    if (ec) test.say(ec.message());
    else if (c.wait().signal() != SIGUSR1) test.say(c.wait().str());
    if (handled != 0) test.say("a handler ran");
  });
}

TEST_CASE("those that stay, and those of a nested group, are the warden's as before") {
  const scene s;
  in_program([&](process_group& group, teller test) {
    process_group inner = group.nested();
    child c = inner.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) test.say("not ready");
    inner = process_group(nullptr);
    if (c.wait().signal() != SIGKILL) test.say("nested");
    child stays = group.spawn(s.words({"sleep"}), {.outlives = true});
    group.terminate();
    if (stays.wait_for(0ms)) test.say("ended");
    stays.signal(SIGKILL);
    if (stays.wait().signal() != SIGKILL) test.say("status");
    child d = group.spawn(s.words({"sleep"}));
    d.signal(SIGTERM);
    if (d.wait().signal() != SIGTERM) test.say("signal");
  });
  CHECK(s.empty());
}

TEST_CASE("a large command line, and a directory and environment of their own") {
  in_program([](process_group& group, teller test) {
    const std::string large(100'000, 'x');
    std::vector<std::string> words = {"/bin/sh", "-c", "echo $#"};
    for (int i = 0; i < 10; ++i) words.push_back(large);
    child c = group.spawn(words, {.out = stdio::pipe()});
    if (support::read_all(c.out()) != "9\n") test.say("arguments");
    const spawn_options options = {.environment = {"GREETING=hello", "HOME"}, .working_directory = "/usr/lib"};
    if (shell(group, "echo $GREETING; pwd; echo ${HOME-none}", options) != "hello\n/usr/lib\nnone\n")
      test.say("environment");
  });
}
