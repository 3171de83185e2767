// The guard for main(): what a program gets that has one line of it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <instance_guard/instance_guard.hpp>
#include <string>
#include <thread>

#include "support/open_descriptors.hpp"
#include "support/sanitizer.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

// Runs `body` in a child of this test; its output on stdout and stderr, and its wait status.
struct outcome {
  int status = -1;
  std::string text;
  bool exited(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
  bool ended_by(int number) const { return WIFSIGNALED(status) && WTERMSIG(status) == number; }
  bool says(std::string_view words) const { return text.find(words) != std::string::npos; }
};

class actor {
 public:
  template <class Body>
  explicit actor(Body body) {
    std::fflush(nullptr);  // or the child says it again when it exits
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      alarm(60);
      // SIGSEGV: a sanitizer has a handler of its own.
      for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGSEGV}) std::signal(number, SIG_DFL);
      dup2(ends[1], 1);
      dup2(ends[1], 2);
      _exit(body());
    }
    close(ends[1]);
    output_ = ends[0];
  }
  ~actor() {
    if (pid_ > 0) {
      kill(SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (output_ >= 0) close(output_);
  }
  actor(const actor&) = delete;
  actor& operator=(const actor&) = delete;

  pid_t pid() const { return pid_; }
  void kill(int number) const { ::kill(pid_, number); }
  // Reads until `words` have been said; false when it ended, or 20 s passed, first.
  bool wait_for(std::string_view words) {
    while (text_.find(words) == std::string::npos) {
      pollfd entry{output_, POLLIN, 0};
      char bytes[1024];
      if (poll(&entry, 1, 20'000) != 1) return false;
      const ssize_t got = read(output_, bytes, sizeof bytes);
      if (got <= 0) return false;
      text_.append(bytes, static_cast<std::size_t>(got));
    }
    return true;
  }
  const std::string& text() const { return text_; }
  outcome end() {
    outcome result;
    while (waitpid(pid_, &result.status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    // What it said before it ended is in the pipe; children of its own may hold the other end.
    fcntl(output_, F_SETFL, O_NONBLOCK);
    char bytes[4096];
    for (ssize_t got = 0; (got = read(output_, bytes, sizeof bytes)) > 0;)
      text_.append(bytes, static_cast<std::size_t>(got));
    result.text = text_;
    return result;
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  std::string text_;
};

void say(const std::string& text) { (void)!write(1, text.data(), text.size()); }

int hold_for_ever(const std::string& name, single_instance_options options = {}) {
  const auto guard = single_instance::acquire_or_exit(name, options);
  say("held\n");
  for (;;) pause();
}

bool is_free(const std::string& name) { return query_lock(name).state == lock_state::free; }

}  // namespace

TEST_CASE("a second start is refused with exit 75 and names the first") {
  const std::string name = support::unique_name("single");
  actor first([&] { return hold_for_ever(name, {.lock = {.version = "1.4.2"}}); });
  REQUIRE(first.wait_for("held"));
  const outcome second = actor([&] { return hold_for_ever(name, {.lock = {.version = "1.5.0"}}); }).end();
  CHECK(second.exited(75));
  CHECK(second.says(name + ": already running: pid " + std::to_string(first.pid())));
  CHECK(second.says("1.4.2"));
  CHECK(second.says("for "));
  CHECK(second.text.find('\n') == second.text.size() - 1);  // one line where stderr is no terminal
  std::error_code ec;
  auto third = single_instance::acquire(name, ec);
  CHECK(!third);
  CHECK(ec == errc::already_running);
  CHECK(ec == std::errc::device_or_resource_busy);
  REQUIRE(third.holder());
  CHECK(third.holder()->process.pid == first.pid());
  CHECK(third.holder()->version == "1.4.2");
  CHECK(!third.explanation().empty());
}

TEST_CASE("the exit code of a refusal is the program's choice") {
  const std::string name = support::unique_name("single");
  actor first([&] { return hold_for_ever(name); });
  REQUIRE(first.wait_for("held"));
  CHECK(actor([&] { return hold_for_ever(name, {.conflict_exit_code = 0}); }).end().exited(0));
  CHECK(actor([&] { return hold_for_ever(name, {.conflict_exit_code = 99}); }).end().exited(99));
  // What exit(3) makes of it is what is said.
  const outcome cut = actor([&] { return hold_for_ever(name, {.conflict_exit_code = 256 + 7}); }).end();
  CHECK(cut.exited(7));
  CHECK(cut.says("exit 7"));
}

TEST_CASE("a fault is no conflict: exit 73, with path and cure") {
  const support::temporary_directory place;
  const auto link = place.path() / "link";
  std::filesystem::create_directory_symlink(place.path(), link);
  const std::string name = support::unique_name("single");
  const outcome end = actor([&] { return hold_for_ever(name, {.lock = {.directory = link / "sub" / "sub"}}); }).end();
  CHECK(end.exited(73));
  CHECK(end.says("sub"));
  CHECK(end.says("exit 73"));
  CHECK(actor([&] { return hold_for_ever("no/such name"); }).end().exited(73));
}

TEST_CASE("the name is free after every ordered end, and the end is told truly") {
  const std::string name = support::unique_name("single");
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    actor holder([&] { return hold_for_ever(name); });
    REQUIRE(holder.wait_for("held"));
    holder.kill(number);
    CHECK(holder.end().ended_by(number));
    CHECK(is_free(name));
  }
  CHECK(actor([&] {
          const auto guard = single_instance::acquire_or_exit(name);
          return 3;
        })
            .end()
            .exited(3));
  CHECK(is_free(name));
  CHECK(actor([&]() -> int {
          const auto guard = single_instance::acquire_or_exit(name);
          std::exit(4);
        })
            .end()
            .exited(4));
  CHECK(is_free(name));
  CHECK(actor([&]() -> int {
          const auto guard = single_instance::acquire_or_exit(name);
          std::thread([] { std::exit(5); }).join();
          return 0;
        })
            .end()
            .exited(5));
  CHECK(is_free(name));
  CHECK(actor([&]() -> int {
          static single_instance guard;
          guard = single_instance::acquire_or_exit(name);
          std::exit(6);
        })
            .end()
            .exited(6));
  CHECK(is_free(name));
}

TEST_CASE("the next start knows that the last one was killed") {
  const std::string name = support::unique_name("single");
  actor first([&] { return hold_for_ever(name, {.lock = {.version = "7"}}); });
  REQUIRE(first.wait_for("held"));
  first.kill(SIGKILL);
  CHECK(first.end().ended_by(SIGKILL));
  auto guard = single_instance::acquire(name);
  REQUIRE(guard);
  REQUIRE(guard.recovered_from());
  CHECK(guard.recovered_from()->version == "7");
  guard.release();
  guard = single_instance::acquire(name);
  CHECK(!guard.recovered_from());
}

TEST_CASE("acquire_or_exit says in one line that the last one was killed, also where no terminal is") {
  const std::string name = support::unique_name("single");
  actor first([&] { return hold_for_ever(name); });
  REQUIRE(first.wait_for("held"));
  first.kill(SIGKILL);
  CHECK(first.end().ended_by(SIGKILL));
  actor next([&] {
    const auto guard = single_instance::acquire_or_exit(name);
    return 0;
  });
  const outcome got = next.end();
  CHECK(got.exited(0));
  CHECK(got.text.starts_with(name + ": started; the previous run (pid "));
  CHECK(got.text.ends_with(" ago) did not end cleanly\n"));
  CHECK(got.text.find('\n') == got.text.size() - 1);
}

TEST_CASE("its children die with it, however it dies") {
  const std::string name = support::unique_name("single");
  for (const int number : {SIGTERM, SIGKILL, SIGSEGV}) {
    actor holder([&] {
      auto guard = single_instance::acquire_or_exit(name, {.children = {.grace = 100ms}});
      const auto one = guard.spawn({"sh", "-c", "trap '' TERM; sleep 50 & wait; wait"});
      const auto two = guard.spawn({"sleep", "50"});
      say("children " + std::to_string(one.id().pid) + " " + std::to_string(two.id().pid) + " end\n");
      for (;;) pause();
      return 0;
    });
    REQUIRE(holder.wait_for(" end\n"));
    int one = 0;
    int two = 0;
    REQUIRE(std::sscanf(holder.text().c_str(), "children %d %d", &one, &two) == 2);
    std::error_code ec;
    const auto first = process_identity::of(one, ec);
    const auto second = process_identity::of(two, ec);
    CHECK(is_alive(first));
    CHECK(is_alive(second));
    holder.kill(number);
    CHECK(holder.end().ended_by(number));
    const auto next = single_instance::acquire(name, {.lock = {.wait = 20s}});
    CHECK(next);
    CHECK(!is_alive(first));
    CHECK(!is_alive(second));
  }
}

TEST_CASE("names are held all or none") {
  const std::string name = support::unique_name("single");
  const std::string wallet = support::unique_name("single");
  actor other([&] { return hold_for_ever(wallet); });
  REQUIRE(other.wait_for("held"));
  std::error_code ec;
  auto guard = single_instance::acquire(name, {.also_hold = {wallet}}, ec);
  CHECK(ec == errc::already_running);
  REQUIRE(guard.holder());
  CHECK(guard.holder()->process.pid == other.pid());
  CHECK(is_free(name));
  other.kill(SIGTERM);
  other.end();
  guard = single_instance::acquire(name, {.also_hold = {wallet, name, wallet}});
  CHECK(query_lock(name).state == lock_state::held);
  CHECK(query_lock(wallet).state == lock_state::held);
  guard.release();
  CHECK(is_free(name));
  CHECK(is_free(wallet));
}

TEST_CASE("a name that is taken later is held as long as the first") {
  const std::string name = support::unique_name("single");
  const std::string wallet = support::unique_name("single");
  auto guard = single_instance::acquire(name);
  guard.also_hold(wallet);
  CHECK(query_lock(wallet).state == lock_state::held);
  std::error_code ec;
  guard.also_hold(wallet, ec);
  CHECK(ec == errc::already_running);
  CHECK(guard);
  guard.verify();
  guard.release();
  CHECK(is_free(wallet));
}

TEST_CASE("a second acquisition of a name in one process says that this process holds it") {
  const std::string name = support::unique_name("single");
  const auto guard = single_instance::acquire(name);
  std::error_code ec;
  const auto again = single_instance::acquire(name, ec);
  CHECK(!again);
  CHECK(ec == errc::already_running);
  REQUIRE(again.holder());
  CHECK(again.holder()->process.pid == getpid());
}

TEST_CASE("verify puts a removed file back, and tells when the warden is dead") {
  const std::string name = support::unique_name("single");
  CHECK(actor([&] {
          auto guard = single_instance::acquire_or_exit(name);
          const auto path = guard.lockfile().path();
          std::error_code ec;
          guard.verify(ec);
          if (ec) return 1;
          std::filesystem::remove(path);
          guard.verify(ec);
          if (ec || !std::filesystem::exists(path)) return 2;
          guard.verify(ec);
          if (ec) return 3;
          const auto warden = guard.children().warden();
          auto handle = process_handle::open(warden);
          handle.signal(SIGSTOP);
          for (int i = 0; i < 2000 && !ec; ++i) {
            guard.verify(ec);
            usleep(1000);
          }
          if (ec != errc::warden_lost) return 4;
          handle.signal(SIGCONT);
          for (int i = 0; i < 2000 && ec; ++i) {
            guard.verify(ec);
            usleep(1000);
          }
          if (ec) return 5;
          handle.signal(SIGKILL);
          if (!handle.wait_for(10s)) return 6;
          guard.verify(ec);
          return ec == errc::warden_lost ? 0 : 7;
        })
            .end()
            .exited(0));
  const auto next = single_instance::acquire(name, {.lock = {.wait = 20s}});
  CHECK(next);
}

TEST_CASE(
    "a program that closes every descriptor has lost the name, and verify says that, not just that the warden went") {
  const std::string name = support::unique_name("single");
  actor careless([&] {
    auto guard = single_instance::acquire_or_exit(name);
    const child worker = guard.spawn({"sleep", "50"});
    for (int number = 3; number < 1024; ++number) close(number);
    std::error_code ec;
    for (int i = 0; i < 20'000 && !ec; ++i) {  // the warden ends the children first
      guard.verify(ec);
      usleep(1000);
    }
    std::puts(ec == errc::lock_lost && !is_alive(worker.id()) ? "lost end" : "kept end");
    std::fflush(stdout);
    for (;;) pause();
    return 0;
  });
  CHECK(careless.wait_for("lost end"));
  const auto next = single_instance::acquire(name, {.lock = {.wait = 20s}});
  CHECK(next);
  careless.kill(SIGKILL);
}

TEST_CASE("a moved guard goes on, the one it was moved from owns nothing") {
  const std::string name = support::unique_name("single");
  auto one = single_instance::acquire(name);
  auto two = std::move(one);
  CHECK(!one);  // NOLINT(bugprone-use-after-move)
  CHECK(two);
  one.release();
  two.verify();
  std::error_code ec;
  one.verify(ec);
  CHECK(ec == errc::lock_lost);
  CHECK(!one.spawn({"true"}, ec));
  CHECK(ec);
  two.release();
  two.release();
  CHECK(!two);
  CHECK(is_free(name));
}

TEST_CASE("a forked child has no share in the guard") {
  const std::string name = support::unique_name("single");
  auto guard = single_instance::acquire(name);
  const auto worker = guard.spawn({"sleep", "50"});
  const pid_t child = fork();
  if (child == 0) {
    const bool owns = static_cast<bool>(guard);
    guard.release();
    std::exit(owns ? 1 : 0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(guard);
  guard.verify();
  CHECK(is_alive(worker.id()));
  CHECK(query_lock(name).state == lock_state::held);
}

TEST_CASE("graceful: the loop ends, the children end, the exit code is the program's") {
  const std::string name = support::unique_name("single");
  actor holder([&] {
    auto guard = single_instance::acquire_or_exit(name, {.signals = {.graceful = true}});
    const auto worker = guard.spawn({"sleep", "50"});
    say("held\n");
    while (!guard.wait_for_stop(100ms)) {
    }
    return guard.stop_requested() ? 9 : 1;
  });
  REQUIRE(holder.wait_for("held"));
  holder.kill(SIGTERM);
  CHECK(holder.end().exited(9));
  CHECK(is_free(name));
}

TEST_CASE("a guard leaves no descriptor and no environment behind") {
  const std::string name = support::unique_name("single");
  { const auto warm = single_instance::acquire(name); }
  const int before = support::open_descriptors();
  for (int i = 0; i < 20; ++i) {
    auto guard = single_instance::acquire(name);
    CHECK(guard.run({"true"}).status.success());
  }
  CHECK(support::open_descriptors() == before);
  CHECK(std::getenv("INSTANCE_GUARD_MARK") == nullptr);
}

TEST_CASE("signals that a refused start replaced come back") {
  const std::string name = support::unique_name("single");
  actor holder([&] { return hold_for_ever(name); });
  REQUIRE(holder.wait_for("held"));
  CHECK(actor([&] {
          std::error_code ec;
          const auto guard = single_instance::acquire(name, ec);
          struct sigaction now = {};
          sigaction(SIGTERM, nullptr, &now);
          return now.sa_handler == SIG_DFL ? 0 : 1;
        })
            .end()
            .exited(0));
}

TEST_CASE("the throwing form says who holds the name") {
  const std::string name = support::unique_name("single");
  actor holder([&] { return hold_for_ever(name); });
  REQUIRE(holder.wait_for("held"));
  try {
    const auto guard = single_instance::acquire(name);
    FAIL("was not refused");
  } catch (const already_running& error) {
    CHECK(error.code() == errc::already_running);
    REQUIRE(error.holder());
    CHECK(error.holder()->process.pid == holder.pid());
    CHECK(std::string(error.what()).find(std::to_string(holder.pid())) != std::string::npos);
  }
}

TEST_CASE("in the background it holds the name, its children and its wallet, under its new pid" *
          doctest::skip(support::always_threaded)) {
  const std::string name = support::unique_name("single");
  const std::string wallet = support::unique_name("single");
  actor first([&] {
    auto guard = single_instance::acquire_or_exit(name, {.children = {.grace = 100ms}, .also_hold = {wallet}});
    const auto worker = guard.spawn({"sleep", "50"});
    const int report = dup(1);
    guard.daemonize();
    guard.verify();
    auto later = guard.spawn({"sleep", "50"});
    const std::string text = "background " + std::to_string(getpid()) + " " + std::to_string(worker.id().pid) + " " +
                             std::to_string(later.id().pid) + " " + std::to_string(getsid(0)) + " end\n";
    (void)!write(report, text.data(), text.size());
    close(report);
    alarm(60);
    for (;;) pause();
    return 0;
  });
  REQUIRE(first.wait_for(" end\n"));
  const pid_t started = first.pid();
  CHECK(first.end().exited(0));
  int pid = 0, one = 0, two = 0, session = 0;
  REQUIRE(std::sscanf(first.text().c_str(), "background %d %d %d %d", &pid, &one, &two, &session) == 4);
  CHECK(pid != started);
  CHECK(session != started);
  for (const std::string& each : {name, wallet}) {
    const lock_status status = query_lock(each);
    CHECK(status.state == lock_state::held);
    REQUIRE(status.holder);
    CHECK(status.holder->process.pid == pid);
  }
  std::error_code ec;
  const auto daemon = process_identity::of(pid, ec);
  const auto worker = process_identity::of(one, ec);
  const auto later = process_identity::of(two, ec);
  CHECK(is_alive(worker));
  CHECK(is_alive(later));
  SUBCASE("killed: everything ends with it") { process_handle::open(daemon).signal(SIGKILL); }
  SUBCASE("stopped: everything ends with it") { process_handle::open(daemon).signal(SIGTERM); }
  const auto next = single_instance::acquire(name, {.lock = {.wait = 20s}});
  CHECK(next);
  CHECK(!is_alive(worker));
  CHECK(!is_alive(later));
}

TEST_CASE("with threads it stays in the foreground, and loses nothing") {
  const std::string name = support::unique_name("single");
  auto guard = single_instance::acquire(name);
  std::error_code ec;
  std::thread([&] { guard.daemonize(ec); }).join();
  CHECK(ec == errc::threads_running);
  guard.verify();
}

namespace {

// Kills the owner and its warden in a way that leaves the warden no moment to act.
void kill_both(const std::string& name, actor& owner) {
  const lock_status status = query_lock(name);
  REQUIRE(status.holder);
  REQUIRE(status.holder->process.pid == owner.pid());
  auto warden = process_handle::open(status.holder->warden);
  warden.signal(SIGSTOP);
  owner.kill(SIGKILL);
  CHECK(owner.end().ended_by(SIGKILL));
  warden.signal(SIGKILL);
  CHECK(warden.wait_for(10s));
}

}  // namespace

TEST_CASE("a start that is killed while it ends the strays of the last one hands that on to the next") {
  const std::string name = support::unique_name("single");
  const single_instance_options slow = {.children = {.grace = 3s}};
  actor first([&] {
    auto guard = single_instance::acquire_or_exit(name, slow);
    (void)!std::system("setsid sh -c 'trap \"\" TERM; echo stray $$ end; exec sleep 50' &");
    for (;;) pause();
    return 0;
  });
  REQUIRE(first.wait_for(" end\n"));
  int pid = 0;
  REQUIRE(std::sscanf(first.text().c_str(), "stray %d", &pid) == 1);
  std::error_code ec;
  const auto stray = process_identity::of(pid, ec);
  kill_both(name, first);
  CHECK(is_alive(stray));

  actor second([&] { return hold_for_ever(name, slow); });
  lock_status status;
  for (int i = 0; i < 20'000; ++i) {
    status = query_lock(name);
    if (status.holder && status.holder->process.pid == second.pid() && status.holder->warden) break;
    usleep(1000);
  }
  REQUIRE(status.holder);
  CHECK(status.holder->unswept[0].process.pid > 0);
  CHECK(status.holder->unswept[1].process.pid == 0);
  kill_both(name, second);
  CHECK(is_alive(stray));
  CHECK(!second.wait_for("held"));

  auto third = single_instance::acquire(name, {.lock = {.wait = 20s}});
  CHECK(third);
  CHECK(!is_alive(stray));
  CHECK(third.lockfile().record().unswept[0].process.pid == 0);
}
