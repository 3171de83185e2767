// Strays from end to end: real guards, real wardens, and the next start.
#include <atomic>
#include <doctest/doctest.h>
#include <instance_guard/instance_guard.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/owner.hpp"
#include "support/sanitizer.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;
using namespace std::chrono_literals;
using instance_guard::single_instance;

namespace {

instance_guard::single_instance_options quick() {
  instance_guard::single_instance_options options;
  options.children.grace = 150ms;
  return options;
}

/// A helper that the forked part starts by itself; it is running when this returns its pid.
pid_t start_stray(const scene& s, const std::string& words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  const int before = ::dup(1);
  ::dup2(ends[1], 1);
  const std::string command = s.mark() + " exec " + s.helper() + " " + words + " &";
  const int result = std::system(command.c_str());
  ::dup2(before, 1);
  ::close(before);
  ::close(ends[1]);
  std::string line;
  for (char c = 0; ::read(ends[0], &c, 1) == 1 && c != '\n';) line += c;
  ::close(ends[0]);
  const pid_t pid = ready_pid(line);
  if (result != 0 || pid == 0) throw std::runtime_error("not ready: " + line);
  return pid;
}

/// A copy of the forked part that executes nothing.
pid_t start_copy() {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::alarm(60);
  for (;;) ::pause();
}

pid_t number(const std::optional<std::string>& line) {
  REQUIRE(line);
  return static_cast<pid_t>(std::atoi(line->c_str()));
}

std::optional<instance_guard::lock_record> holder_of(const std::string& name) {
  return instance_guard::query_lock(name).holder;
}

bool name_is_free(const std::string& name) {
  return instance_guard::query_lock(name).state == instance_guard::lock_state::free;
}

const std::vector<std::string> all_strays = {"stray.system=sleep",  "stray.setsid=sleep",
                                             "stray.popen=sleep",   "stray.spawn=daemon ignore sleep",
                                             "stray.spawn=stopped", "stray.fork="};

/// Takes the name in a process of its own, while nobody may be left; false if it is refused.
void next_start(const scene& s, const std::string& name, const std::vector<pid_t>& gone) {
  owner next(s, {.arguments = {"wait=20000", "guard=" + name, "wait-line=", "end=return"}});
  CHECK(next.process().read_until("acquired"));
  for (const pid_t pid : gone) CHECK_FALSE(alive(pid));
  next.go_on();
  REQUIRE(next.process().wait());
  CHECK(next.process().wait()->code() == 21);
}

}  // namespace

TEST_CASE("what another copy of the library in the same program has started is nobody's stray") {
  const scene s;
  const std::string name = unique_name("copies");
  auto guard = single_instance::acquire(name, quick());
  // As in a plugin with hidden symbols: it has the program's memory, but knows nothing of its marks.
  auto& known = instance_guard::detail::marks_here.slots;
  const auto& first = known[0];
  REQUIRE(first.used);
  const instance_guard::detail::mark_slot kept = first;
  known[0] = {};
  instance_guard::process_group plugin({.grace = 150ms});
  known[0] = kept;
  const auto child = plugin.spawn(s.words({"sleep"}), {.environment = {"INSTANCE_GUARD_MARK"}});
  guard.release();
  CHECK(plugin.warden_alive());
  CHECK(alive(child.id().pid));
}

TEST_CASE("owner and warden killed at once: the next start ends the strays before it has the name") {
  for (const bool owner_first : {true, false}) {
    CAPTURE(owner_first);
    canary stranger;
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("both");
    owner_options options{.arguments = {"grace=150", "guard=" + name, "child=undying daemon sleep"},
                          .ready = all_strays.size() + 1};
    options.arguments.insert(options.arguments.end(), all_strays.begin(), all_strays.end());
    options.arguments.push_back("pause=");
    owner o(s, options);
    REQUIRE(o.complete());
    const auto record = holder_of(name);
    REQUIRE(record);
    REQUIRE(record->warden.pid > 1);
    const pid_t both[] = {o.process().pid(), record->warden.pid};
    // "At once": it must not begin to end the strays because this test is held up between the two.
    ::kill(both[1], SIGSTOP);
    REQUIRE(wait_until([&] { return support::detail::state_of("/proc/" + std::to_string(both[1])) == 'T'; }));
    ::kill(both[owner_first ? 0 : 1], SIGKILL);
    ::kill(both[owner_first ? 1 : 0], SIGKILL);
    REQUIRE(o.process().wait());
    REQUIRE(wait_until([&] { return !alive(both[1]); }));
    // Nobody is left who could end them; one child may have had its death signal.
    CHECK(helpers_of(s).size() >= all_strays.size() - 1);
    next_start(s, name, o.ready());
    CHECK(s.empty());
  }
}

TEST_CASE("the name is not free before the last stray of a killed owner is dead") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("order");
  owner o(s, {.arguments = {"grace=400", "guard=" + name, "stray.spawn=daemon ignore sleep", "pause="}, .ready = 1});
  REQUIRE(o.complete());
  const pid_t stray = o.ready().at(0);
  o.process().signal(SIGKILL);
  REQUIRE(o.process().wait());
  while (alive(stray)) CHECK_FALSE(name_is_free(name));
  next_start(s, name, {stray});
}

TEST_CASE("a guard that is released ends the strays of a program that goes on" *
          doctest::skip(support::always_threaded)) {
  scene s;
  const std::string name = unique_name("release");
  forked part([&](const teller& tell) {
    auto guard = single_instance::acquire(name, quick());
    const pid_t pids[] = {start_stray(s, "sleep"), start_stray(s, "daemon sleep"), start_copy()};
    guard.release();
    for (const pid_t pid : pids)
      if (alive(pid)) return 1;
    tell.say("released");
    // What it starts from now on is nobody's stray.
    const pid_t later = start_stray(s, "daemon sleep");
    tell.say(std::to_string(later));
    auto again = single_instance::acquire(name, quick());
    again.release();
    return alive(later) ? 0 : 2;
  });
  CHECK(part.line() == "released");
  const pid_t later = number(part.line());
  CHECK(part.wait().code() == 0);
  CHECK(alive(later));
  s.end();
}

TEST_CASE("another group of the same program, and its warden, survive the release of the guard" *
          doctest::skip(support::always_threaded)) {
  scene s;
  const std::string name = unique_name("group");
  forked part([&](const teller& tell) {
    auto guard = single_instance::acquire(name, quick());
    instance_guard::process_group group({.grace = 150ms});
    const auto child =
        group.spawn(s.words({"sleep"}), {.environment = {s.mark()}, .out = instance_guard::stdio::pipe()});
    const pid_t stray = start_stray(s, "sleep");
    guard.release();
    if (alive(stray)) return 1;
    if (!group.warden_alive()) return 2;
    if (!alive(child.id().pid)) return 3;
    tell.say("ok");
    group.terminate();
    return alive(child.id().pid) ? 4 : 0;
  });
  CHECK(part.line() == "ok");
  CHECK(part.wait().code() == 0);
}

TEST_CASE("two guards of one program: each ends its own strays" * doctest::skip(support::always_threaded)) {
  for (const bool outer_first : {true, false}) {
    CAPTURE(outer_first);
    scene s;
    const std::string first = unique_name("one"), second = unique_name("two");
    forked part([&](const teller&) {
      auto outer = single_instance::acquire(first, quick());
      const pid_t of_outer = start_stray(s, "daemon sleep");
      auto inner = single_instance::acquire(second, quick());
      const pid_t of_inner = start_stray(s, "daemon sleep");
      const pid_t copy = start_copy();
      (outer_first ? outer : inner).release();
      if (alive(of_outer) == outer_first) return 1;
      if (alive(of_inner) != outer_first) return 2;
      if (alive(copy) != outer_first) return 3;
      (outer_first ? inner : outer).release();
      if (alive(of_outer)) return 4;
      if (alive(of_inner)) return 5;
      return alive(copy) ? 6 : 0;
    });
    CHECK(part.wait().code() == 0);
    CHECK(s.empty());
  }
}

TEST_CASE("with threads the environment stays as it is, and children started through the guard are marked") {
  scene s;
  const std::string name = unique_name("threads");
  forked part([&](const teller& tell) {
    std::atomic<bool> end{false};
    std::thread beside([&] {
      // What would crash beside a setenv.
      while (!end) static_cast<void>(std::getenv("INSTANCE_GUARD_MARK"));
    });
    auto guard = single_instance::acquire(name, quick());
    const bool untouched = std::getenv("INSTANCE_GUARD_MARK") == nullptr;
    const auto child = guard.spawn(s.words({"sleep"}), {.environment = {s.mark()}});
    // The child is past its exec, but the kernel may still be busy with the new program's memory.
    const std::string file = "/proc/" + std::to_string(child.id().pid) + "/environ";
    const bool marked =
        wait_until([&] { return detail::contents(file).find("INSTANCE_GUARD_MARK=") != std::string::npos; });
    const pid_t copy = start_copy();
    guard.release();
    const bool copy_ended = !alive(copy);
    end = true;
    beside.join();
    tell.say("done");
    return untouched && marked && copy_ended ? 0 : 1;
  });
  CHECK(part.line() == "done");
  CHECK(part.wait().code() == 0);
}

TEST_CASE("after daemonize the program is no stray of itself, and its strays are still its own" *
          doctest::skip(support::always_threaded)) {
  for (const bool killed : {true, false}) {
    CAPTURE(killed);
    scene s;
    const std::string name = unique_name("daemon");
    forked part([&](const teller& tell) {
      auto guard = single_instance::acquire(name, quick());
      const pid_t before = start_stray(s, "daemon sleep");
      guard.daemonize();
      ::alarm(60);
      const pid_t after = start_stray(s, "daemon sleep"), copy = start_copy();
      for (const pid_t pid : {::getpid(), before, after, copy}) tell.say(std::to_string(pid));
      if (killed)
        for (;;) ::pause();
      guard.release();
      tell.say("released");
      return 0;
    });
    const pid_t owner = number(part.line());
    const pid_t strays[] = {number(part.line()), number(part.line()), number(part.line())};
    CHECK(owner != part.pid());
    CHECK(part.wait().code() == 0);
    if (killed) ::kill(owner, SIGKILL);
    else CHECK(part.line() == "released");
    for (const pid_t pid : strays) CHECK(wait_until([&] { return !alive(pid); }));
    CHECK(s.empty());
  }
}

TEST_CASE("after daemonize the guard reaches as far as before" * doctest::skip(support::always_threaded)) {
  using instance_guard::reach;
  for (const reach ends : {reach::spawned, reach::strays}) {
    CAPTURE(static_cast<int>(ends));
    scene s;
    const std::string name = unique_name("daemon");
    forked part([&](const teller& tell) {
      auto options = quick();
      options.ends = ends;
      auto guard = single_instance::acquire(name, options);
      std::string mark = guard.run({"sh", "-c", "echo $INSTANCE_GUARD_MARK"}).out;
      mark.pop_back();
      guard.daemonize();
      ::alarm(60);
      ::setenv("INSTANCE_GUARD_MARK", mark.c_str(), 1);
      tell.say(std::to_string(start_stray(s, "daemon sleep")));
      guard.release();
      tell.say("released");
      return 0;
    });
    const pid_t stray = number(part.line());
    CHECK(part.wait().code() == 0);
    CHECK(part.line() == "released");
    CHECK(alive(stray) == (ends == reach::spawned));
    s.end();
  }
}

TEST_CASE("a guard that reaches everything stays in the foreground, and loses nothing" *
          doctest::skip(support::always_threaded)) {
  const std::string name = unique_name("daemon");
  forked part([&](const teller& tell) {
    auto options = quick();
    options.ends = instance_guard::reach::everything;
    auto guard = single_instance::acquire(name, options);
    std::error_code why;
    guard.daemonize(why);
    tell.say(why == std::errc::function_not_supported ? "not supported" : why.message());
    guard.verify();
    return guard.run({"true"}).status.success() ? 0 : 1;
  });
  CHECK(part.line() == "not supported");
  CHECK(part.wait().code() == 0);
  CHECK(name_is_free(name));
}

TEST_CASE("an owner that became another user loses the strays it started as that one" *
          doctest::skip(support::always_threaded || !is_root())) {
  scene s;
  const std::string name = unique_name("user");
  forked part([&](const teller& tell) {
    auto guard = single_instance::acquire(name, quick());
    tell.say(std::to_string(start_stray(s, "daemon sleep")));
    if (!become(nobody)) return 1;
    // The next spawn finds that out and starts a warden for the present user.
    const auto child = guard.spawn(s.words({"sleep"}), {.environment = {s.mark()}});
    tell.say(std::to_string(start_stray(s, "daemon sleep")));
    for (;;) ::pause();
  });
  const pid_t as_root = number(part.line()), as_user = number(part.line());
  part.signal(SIGKILL);
  part.wait();
  CHECK(wait_until([&] { return !alive(as_root) && !alive(as_user); }));
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("what a stray started as a service elsewhere, and one that is to be kept, outlive everybody") {
  for (const bool both_killed : {true, false}) {
    CAPTURE(both_killed);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    const std::string name = unique_name("kept");
    owner o(s, {.arguments = {"grace=150", "guard=" + name, "outlives=daemon sleep", "keep=daemon spin",
                              "stray.spawn=daemon sleep", "pause="},
                .ready = 3});
    REQUIRE(o.complete());
    const auto record = holder_of(name);
    REQUIRE(record);
    if (both_killed) ::kill(record->warden.pid, SIGKILL);
    o.process().signal(SIGKILL);
    REQUIRE(o.process().wait());
    next_start(s, name, {});
    int left = 0;
    for (const pid_t pid : o.ready()) left += alive(pid) ? 1 : 0;
    CHECK(left == 2);
    CHECK(alive(o.ready("spin")));
    s.end();
  }
}

TEST_CASE("reach::spawned leaves strays alone") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("spawned");
  owner o(s, {.arguments = {"grace=150", "reach=spawned", "guard=" + name, "stray.setsid=sleep", "child=spin",
                            "wait-line=", "end=kill"},
              .ready = 2});
  REQUIRE(o.complete());
  o.go_on();
  REQUIRE(o.process().wait());
  next_start(s, name, {o.ready("spin")});
  CHECK(alive(o.ready("sleep")));
  s.end();
}
