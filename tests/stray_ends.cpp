// What a program started by itself ends with it, however it was started and whatever it does.
#include "stray_stage.hpp"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>

using namespace stray_test;

namespace {

/// The end of the owner: killed, or a clean goodbye.
outcome finish(stage& there, bool killed) { return killed ? there.kill() : there.leave(); }

/// `command` by system(3) in the owner; `count` processes that say ready must be gone afterwards.
void ends(const std::string& words, std::size_t count, stage_options options = {}) {
  for (const bool killed : {true, false}) {
    CAPTURE(words);
    CAPTURE(killed);
    support::scene scene;
    support::canary canary;
    stage there(
        scene,
        [&](const ig::stray_mark&) {
          const std::string command = scene.helper() + " " + words + " &";
          if (std::system(command.c_str()) != 0) _exit(72);
        },
        options);
    const auto pids = there.ready(count);
    const outcome end = finish(there, killed);
    CHECK_MESSAGE(end.left == 0, end.str());
    CHECK(end.report.conclusive);
    CHECK_MESSAGE(scene.empty(), end.str());
    for (const pid_t pid : pids) CHECK_MESSAGE(!support::alive(pid), end.str());
    for (int i = 0; i < end.report.count; ++i) CHECK(end.report.events[i].pid != canary.pid());
  }
}

}  // namespace

TEST_CASE("a plain background process ends with the program") { ends("sleep", 1); }
TEST_CASE("one with its own session ends with it") { ends("setsid sleep", 1); }
TEST_CASE("a daemon ends with it") { ends("daemon sleep", 1); }
TEST_CASE("one that ignores every signal ends after the grace") { ends("daemon ignore sleep", 1, {.grace = 50ms}); }
TEST_CASE("one that is stopped ends with it") { ends("daemon stopped", 1); }
TEST_CASE("one that is stopped and ignores signals ends") { ends("daemon ignore stopped", 1, {.grace = 50ms}); }
TEST_CASE("one with its descriptors closed ends with it") { ends("daemon closed sleep", 1); }
TEST_CASE("one whose main thread is gone ends with it") { ends("daemon headless sleep", 1); }
TEST_CASE("one that took another name ends with it") { ends("daemon renamed sleep", 1); }
TEST_CASE("one that adopts its own orphans ends with them") { ends("daemon subreaper fork leave sleep", 1); }
TEST_CASE("a chain of children ends from its first to its last") { ends("chain=20 sleep", 1); }
TEST_CASE("many at once end") { ends("fan=100 sleep", 100); }
TEST_CASE("one that forks on SIGTERM ends, and all it made") { ends("daemon hydra=40", 1, {.grace = 100ms}); }
TEST_CASE("what forks and exits all the time ends") { ends("daemon runner=4", 1, {.grace = 20ms}); }

TEST_CASE("what popen started ends with the program") {
  for (const bool killed : {true, false}) {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      if (::popen((scene.helper() + " setsid sleep >&2").c_str(), "r") == nullptr) _exit(72);
      ::dup2(1, 2);
      if (::popen((scene.helper() + " setsid sleep >&2").c_str(), "r") == nullptr) _exit(72);
    });
    there.ready(1);
    REQUIRE(support::wait_until([&] { return scene.processes().size() >= 4; }));
    const outcome end = finish(there, killed);
    CHECK_MESSAGE(end.left == 0, end.str());
    CHECK(scene.empty());
  }
}

TEST_CASE("what posix_spawn started ends with the program") {
  for (const bool killed : {true, false}) {
    support::scene scene;
    stage there(scene,
                [&](const ig::stray_mark&) {
                  std::string path = scene.helper(), word = "ignore", last = "sleep";
                  char* arguments[] = {path.data(), word.data(), last.data(), nullptr};
                  pid_t pid = 0;
                  if (::posix_spawn(&pid, path.c_str(), nullptr, nullptr, arguments, environ) != 0) _exit(72);
                },
                {.grace = 50ms});
    const pid_t pid = there.ready(1).at(0);
    const outcome end = finish(there, killed);
    CHECK_MESSAGE(end.left == 0, end.str());
    CHECK(end.signalled(pid));
    CHECK(!support::alive(pid));
  }
}

TEST_CASE("a fork that executes nothing ends with the program, whatever it does to itself") {
  for (const bool killed : {true, false}) {
    support::scene scene;
    stage there(scene,
                [&](const ig::stray_mark&) {
                  copy_that_stays();
                  copy_that_stays([] { ::setsid(); });
                  copy_that_stays([] {
                    ::setsid();
                    if (::fork() != 0) _exit(0);
                    cap();
                  });
                  copy_that_stays([] {
                    ::setsid();
                    ::clearenv();
                    platform::rename_self("innocent");
                    ::signal(SIGTERM, SIG_IGN);
                    ::prctl(PR_SET_NAME, "innocent", 0, 0, 0);
                    say_ready();
                    for (int i = 0; i < 1024; ++i) ::close(i);
                    for (;;) ::pause();
                  });
                },
                {.grace = 50ms});
    const auto pids = there.ready(4);
    const outcome end = finish(there, killed);
    CHECK_MESSAGE(end.left == 0, end.str());
    for (const pid_t pid : pids) {
      CHECK_MESSAGE(end.signalled(pid), end.str());
      CHECK(!support::alive(pid));
    }
  }
}

TEST_CASE("a child in the middle of vfork, sharing the memory of the program, ends with it" *
          doctest::skip(!platform::children_may_share_memory)) {
  support::scene scene;
  stage there(scene, [&](const ig::stray_mark&) {
    // As vfork(2), but the parent goes on: a child that hangs before it executes something.
    alignas(16) static char stack[64 * 1024];
    const int result = ::clone(
        [](void*) -> int {
          char line[] = "ready pid=000000\n";
          for (long pid = platform::sys::getpid(), i = 15; pid > 0; pid /= 10)
            line[i--] = static_cast<char>('0' + pid % 10);
          platform::sys::write(1, line, sizeof line - 1);
          platform::sys::sleep_for(60'000'000'000);
          platform::sys::exit_group(0);
        },
        stack + sizeof stack, CLONE_VM | SIGCHLD, nullptr);
    if (result < 0) _exit(72);
  });
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.kill();
  CHECK_MESSAGE(end.left == 0, end.str());
  CHECK(end.signalled(pid));
  CHECK(!support::alive(pid));
}

TEST_CASE("a program that replaced itself by another loses its strays as well, and lives itself") {
  support::scene scene;
  stage there(scene, [&](const ig::stray_mark&) {
    const std::string command = scene.helper() + " setsid sleep & " + scene.helper() + " daemon sleep &";
    if (std::system(command.c_str()) != 0) _exit(72);
    copy_that_stays();
  });
  const auto pids = there.ready(3);
  const outcome end = there.execute();
  CHECK_MESSAGE(end.left == 0, end.str());
  for (const pid_t pid : pids) CHECK_MESSAGE(!support::alive(pid), end.str());
  CHECK(support::alive(there.owner()));
  CHECK_FALSE(end.event(there.owner()));
}

TEST_CASE("a mark behind a megabyte of environment and arguments is found") {
  support::scene scene;
  stage there(scene, [&](const ig::stray_mark& mark) {
    const pid_t child = ::fork();
    if (child != 0) return;
    cap();
    std::vector<std::string> text;
    for (int i = 0; i < 12; ++i) text.push_back("A" + std::to_string(i) + "=" + std::string(90'000, 'x'));
    text.push_back(ig::mark_entry(mark));
    text.push_back("Z=" + std::string(100'000, 'y'));
    text.push_back(scene.mark());
    std::vector<char*> list;
    for (auto& each : text) list.push_back(each.data());
    list.push_back(nullptr);
    std::string path = scene.helper(), word = "sleep";
    char* arguments[] = {path.data(), word.data(), nullptr};
    ::execve(path.c_str(), arguments, list.data());
    _exit(127);
  });
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.kill();
  CHECK_MESSAGE(end.left == 0, end.str());
  CHECK(!support::alive(pid));
}

TEST_CASE("one that takes long to end, for it has much memory, is waited for, and its child found") {
  for (int round = 0; round < 3; ++round) {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      copy_that_stays([] {
        // Its memory is gone, and with it all that it carries, long before it is dead and its child
        // an orphan.
        constexpr std::size_t much = std::size_t{128} << 20;
        ::mmap(nullptr, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        copy_that_stays([] { ::setsid(); });
      });
      copy_that_stays([] {
        // The same, and of its threads the first one is dead long before the second.
        std::thread([] { ::pause(); }).detach();
        constexpr std::size_t much = std::size_t{64} << 20;
        ::mmap(nullptr, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
      });
    });
    const auto pids = there.ready(3);
    const outcome end = there.kill();
    CHECK_MESSAGE(end.left == 0, end.str());
    for (const pid_t pid : pids) CHECK_MESSAGE(!support::alive(pid), end.str());
  }
}

TEST_CASE("a warden that keeps children alive finds the adopter all the same, if it may lose their orphans") {
  support::scene scene;
  stage there(scene,
              [&](const ig::stray_mark&) {
                if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
              },
              {.change = [](ig::stray_target& target) {
                target.may_lose_children = true;
                if (::fork() == 0) {
                  cap(5);
                  for (;;) ::pause();
                }
              }});
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.leave();
  CHECK_MESSAGE(end.left == 0, end.str());
  CHECK(end.signalled(pid));
}

TEST_CASE("the stop signal is sent once, SIGKILL only after the grace") {
  support::scene scene;
  stage there(scene,
              [&](const ig::stray_mark&) {
                if (std::system((scene.helper() + " daemon ignore sleep &").c_str()) != 0) _exit(72);
                if (std::system((scene.helper() + " daemon slow-term=50 &").c_str()) != 0) _exit(72);
                copy_that_stays([] { ::signal(SIGUSR1, [](int) { write_all(1, "got it\n", 7); }); });
              },
              {.grace = 500ms, .stop_signal = SIGUSR1});
  auto pids = there.ready(3);
  const outcome end = there.kill();
  CHECK(end.left == 0);
  CHECK(there.read_line() == "got it");
  CHECK(there.read_line() == "");
  int stop = 0, kill = 0;
  for (int i = 0; i < end.report.count; ++i) {
    CHECK(end.report.events[i].fate == ig::stray_fate::signalled);
    if (end.report.events[i].signal == SIGUSR1) ++stop;
    if (end.report.events[i].signal == SIGKILL) ++kill;
  }
  CHECK_MESSAGE(stop == 3, end.str());
  CHECK(kill == 2);  // SIGUSR1 alone ends the one that only handles SIGTERM
  CHECK(end.milliseconds >= 500);
}

TEST_CASE("what a stray starts in answer to the stop signal has the grace for its work") {
  support::scene scene;
  stage there(
      scene,
      [&](const ig::stray_mark&) {
        const char* trap =
            "(trap 'sleep 0.1 && sh -c \"sleep 0.1 && echo inner\" && echo done; exit 7' TERM; echo ready pid=$$; "
            "while :; do sleep 0.02; done) &";
        if (std::system(trap) != 0) _exit(72);
      },
      {.grace = 20s});
  there.ready(1);
  const outcome end = there.kill();
  CHECK_MESSAGE(end.left == 0, end.str());
  CHECK(there.read_line() == "inner");
  CHECK(there.read_line() == "done");
}

TEST_CASE("one that is stopped hears the stop signal, and need not be killed") {
  support::scene scene;
  stage there(scene,
              [&](const ig::stray_mark&) {
                if (std::system((scene.helper() + " daemon stopped &").c_str()) != 0) _exit(72);
              },
              {.grace = 10s});
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.kill();
  CHECK(end.left == 0);
  CHECK(end.signalled(pid));
  for (int i = 0; i < end.report.count; ++i) CHECK(end.report.events[i].signal == SIGTERM);
}

TEST_CASE("nothing to do takes no grace") {
  support::scene scene;
  stage there(scene, [](const ig::stray_mark&) { say_ready(); });
  there.ready(1);
  const outcome end = there.leave();
  CHECK(end.left == 0);
  CHECK(end.report.count == 0);
  CHECK(end.milliseconds < 1000);
}
