// The lock at every point where it could be interrupted: stopped there while others act, killed
// there. Every system call of taking and letting go is such a point.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>

#include "support/other_user.hpp"
#include "support/stepped_process.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;

namespace {

struct shared_word {
  std::atomic<int>* value =
      new (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) std::atomic<int>(0);
  ~shared_word() { ::munmap(value, 4096); }
  std::atomic<int>& operator*() const { return *value; }
};

/// With the file lock alone, where that is possible; else with both.
bool leave_the_network() { return !support::is_root() || ::unshare(CLONE_NEWNET) == 0; }

constexpr int taken = 1, let_go = 2, refused = 3;

/// Takes the name and lets it go, telling where it is; 77 if it could not be set up.
int take_and_let_go(const std::string& name, const lock_options& options, std::atomic<int>& where) {
  if (!leave_the_network()) return 77;
  support::stepped_process::mark();
  std::error_code ec;
  pid_lockfile lock(name, options, ec);
  if (ec) {
    where = refused;
    return ec == errc::already_running || ec == errc::still_cleaning_up ? 75 : 73;
  }
  where = taken;
  support::stepped_process::mark();
  where = let_go;
  lock.release();
  support::stepped_process::mark();
  return 0;
}

}  // namespace

TEST_CASE(
    "whoever stands still anywhere between taking and letting go, nobody else has the name with "
    "it") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  int points = 0;
  for (int stop_after = 0;; ++stop_after) {
    const std::string name = support::unique_name("stop");
    const shared_word where;
    pid_lockfile before(name, options);  // so that there is a file to be unlinked meanwhile
    support::stepped_process one([&] { return take_and_let_go(name, options, *where); });
    if (!one.possible() || !one.run_to_mark()) {
      MESSAGE("skipped: needs ptrace");
      return;
    }
    for (int i = 0; i < stop_after && !one.ended(); ++i) one.next();
    CAPTURE(stop_after);
    CAPTURE(one.number());
    if (one.ended()) break;
    ++points;
    before.release();
    // Now another takes it, unless the first has it, and keeps it.
    std::error_code ec;
    pid_lockfile other(name, options, ec);
    const int status = one.finish();
    CHECK(status != 77 << 8);
    if (ec) {
      CHECK(ec == errc::already_running);
    } else {
      CHECK(status == 75 << 8);  // refused: the other has it
      CHECK(*where == refused);
      other.verify();
    }
  }
  CHECK(points > 10);
}

TEST_CASE("whoever stands still anywhere while it lets go, nobody gets the name before it has") {
  bool keeps = false;
  SUBCASE("the other lets go as well") { keeps = false; }
  SUBCASE("the other keeps it") { keeps = true; }
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  int points = 0;
  for (int stop_after = 0;; ++stop_after) {
    const std::string name = support::unique_name("go");
    const shared_word where;
    support::stepped_process one([&] { return take_and_let_go(name, options, *where); });
    if (!one.possible() || !one.run_to_mark()) return;
    for (int i = 0; i < stop_after && !one.ended(); ++i) one.next();
    CAPTURE(stop_after);
    if (one.ended()) break;
    ++points;
    std::error_code ec;
    pid_lockfile other(name, options, ec);
    CHECK((!ec || ec == errc::already_running));
    if (!ec) CHECK(*where != taken);
    if (*where == taken) CHECK(ec == errc::already_running);
    if (!keeps) other.release();
    const int status = one.finish();
    if (keeps && !ec) {
      CHECK(std::filesystem::exists(other.path()));  // not taken away by the one who let go
      const shared_word third;
      support::stepped_process late([&] { return take_and_let_go(name, options, *third); });
      CHECK(late.finish() == 75 << 8);
      other.release();
    }
    // It was refused, or it had it; there is no third, and nothing is left.
    CHECK((status == 0 || status == 75 << 8));
    CHECK(!std::filesystem::exists(directory.path() / (name + ".lock")));
    pid_lockfile last(name, options, ec);
    CHECK(!ec);
    CHECK(!last.recovered_from());
  }
  CHECK(points > 20);
}

TEST_CASE(
    "killed at any system call of taking or letting go, the name is free at once and nothing is "
    "left") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  for (int kill_after = 0;; ++kill_after) {
    const std::string name = support::unique_name("kill");
    const shared_word where;
    support::stepped_process one([&] { return take_and_let_go(name, options, *where); });
    if (!one.possible() || !one.run_to_mark()) return;
    for (int i = 0; i < kill_after && !one.ended(); ++i) one.next();
    CAPTURE(kill_after);
    CAPTURE(one.number());
    if (one.ended()) break;
    one.kill();
    std::error_code ec;
    pid_lockfile lock(name, options, ec);
    REQUIRE(!ec);
    if (*where == taken) {
      REQUIRE(lock.recovered_from());
      CHECK(lock.recovered_from()->process.pid == one.pid());
    }
    lock.release();
    std::filesystem::remove(directory.path() / (name + ".refused"));
    CHECK(std::filesystem::is_empty(directory.path()));
  }
}

TEST_CASE("killed at any system call while it puts its file back, the name is free and nothing is left") {
  bool written = false;
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  for (int kill_after = 0;; ++kill_after) {
    const std::string name = support::unique_name("heal");
    support::stepped_process one([&] {
      std::error_code ec;
      pid_lockfile lock(name, options, ec);
      std::filesystem::remove(lock.path());
      support::stepped_process::mark();
      lock.verify(ec);
      ::_exit(ec ? 1 : 0);
      return 0;
    });
    if (!one.possible() || !one.run_to_mark()) return;
    for (int i = 0; i < kill_after && !one.ended(); ++i) one.next();
    CAPTURE(kill_after);
    CAPTURE(one.number());
    if (one.ended()) break;
    one.kill();
    std::error_code ec;
    pid_lockfile lock(name, options, ec);
    REQUIRE(!ec);
    // Once its record is written again it is never lost.
    CHECK((lock.recovered_from().has_value() || !written));
    written = lock.recovered_from().has_value();
    if (written) CHECK(lock.recovered_from()->process.pid == one.pid());
    lock.verify(ec);
    CHECK(!ec);
    lock.release();
    CHECK(std::filesystem::is_empty(directory.path()));
  }
  CHECK(written);
}

TEST_CASE("a holder that is held up between its lock and its record is waited for, and named") {
  // Beside a busy processor the contender itself may come too late to see anything: once is enough.
  bool looked_again = false;
  for (int tries = 0; tries < 20 && !looked_again; ++tries) {
    support::temporary_directory directory;
    const lock_options options = {.directory = directory.path()};
    const std::string name = support::unique_name("late");
    support::stepped_process holder([&] {
      const pid_lockfile lock(name, options);
      support::stepped_process::mark();
      return 0;
    });
    support::stepped_process contender([&, expected = holder.pid()] {
      std::error_code ec;
      const pid_lockfile lock(name, options, ec);
      return ec == errc::already_running && lock.holder() && lock.holder()->process.pid == expected ? 0 : 1;
    });
    if (!holder.possible() || !contender.possible()) {
      MESSAGE("skipped: needs ptrace");
      return;
    }
    REQUIRE(holder.run_to(SYS_flock));
    REQUIRE(holder.finish_call());  // the file is its own, and empty
    // It asks who listens once its first patience is over. Whoever asks twice has not given up.
    REQUIRE(contender.run_to(SYS_connect));
    if (!contender.run_to(SYS_connect)) continue;
    looked_again = true;
    REQUIRE(holder.run_to_mark());
    CHECK(contender.finish() == 0);
  }
  CHECK(looked_again);
}

TEST_CASE("verify makes at most two system calls when all is well") {
  support::temporary_directory directory;
  support::stepped_process one([&] {
    pid_lockfile lock(support::unique_name("two"), {.directory = directory.path()});
    std::error_code ec;
    lock.verify(ec);
    support::stepped_process::mark();
    lock.verify(ec);
    support::stepped_process::mark();
    return ec ? 1 : 0;
  });
  if (!one.possible() || !one.run_to_mark()) return;
  const int before = one.calls();
  REQUIRE(one.run_to_mark());
  CHECK(one.calls() - before - 1 <= 2);
  CHECK(one.finish() == 0);
}
