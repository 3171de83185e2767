// Exactly one: many contenders at once, holders killed in between, each lock alone.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "support/one_lock_alone.hpp"
#include "support/rounds.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"
#include "support/wait_until.hpp"

using namespace instance_guard;
using support::own_files;
using support::own_network;
using support::possible;
using support::rounds;

namespace {

constexpr int contenders = 64;

struct outcome {
  std::atomic<int> done{0};
  std::atomic<int> taken{0};
  std::atomic<int> refused_by{-1};  // 0: nobody knows
  std::atomic<int> fault{0};
};

/// What all processes of a test see.
struct board {
  std::atomic<int> ready{0};
  std::atomic<int> holders{0};
  std::atomic<int> most{0};
  std::atomic<int> turns{0};
  outcome outcomes[256];

  void enter() {
    const int now = holders.fetch_add(1) + 1;
    for (int seen = most.load(); now > seen && !most.compare_exchange_weak(seen, now);) {
    }
  }
  static board& make() {
    void* memory = ::mmap(nullptr, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return *new (memory) board;
  }
  void drop() { ::munmap(this, sizeof *this); }
};

/// Processes forked by the test, all let go at once; killed and reaped with the object.
class crowd {
 public:
  crowd(board& shared, int count, std::function<int(int)> work) {
    int gate[2];
    REQUIRE(::pipe2(gate, O_CLOEXEC) == 0);
    for (int i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      REQUIRE(pid >= 0);
      if (pid == 0) {
        ::close(gate[1]);
        shared.ready.fetch_add(1);
        char c = 0;
        while (::read(gate[0], &c, 1) < 0 && errno == EINTR) {
        }
        ::_exit(work(i));
      }
      pids_.push_back(pid);
    }
    ::close(gate[0]);
    CHECK(support::wait_until([&] { return shared.ready.load() == count; }));
    shared.ready = 0;
    ::close(gate[1]);
  }
  ~crowd() {
    for (std::size_t i = 0; i < pids_.size(); ++i) end(i, SIGKILL);
  }
  pid_t pid(std::size_t i) const { return pids_[i]; }

  /// Sends `number` if it is positive, and reaps: the status as waitpid(2) gives it.
  int end(std::size_t i, int number) {
    if (pids_[i] <= 0) return -1;
    int status = 0;
    if (number > 0) ::kill(pids_[i], number);
    ::waitpid(pids_[i], &status, 0);
    pids_[i] = 0;
    return status;
  }

 private:
  std::vector<pid_t> pids_;
};

/// One contender: takes or is refused, writes which, and stays if it has the name.
int contend(board& shared, int index, const std::string& name, const lock_options& options) {
  outcome& mine = shared.outcomes[index];
  std::error_code ec;
  pid_lockfile lock(name, options, ec);
  if (!ec) {
    shared.enter();
    mine.taken = 1;
    mine.done = 1;
    ::alarm(600);  // ends by itself, whatever becomes of the test
    for (;;) ::pause();
  }
  if (ec == errc::already_running) mine.refused_by = lock.holder() ? static_cast<int>(lock.holder()->process.pid) : 0;
  else mine.fault = ec.value();
  mine.done = 1;
  return 75;
}

void rounds_of_contenders(int count, const lock_options& options, const std::function<bool()>& prepare) {
  board& shared = board::make();
  const std::string name = support::unique_name("one");
  for (int round = 0; round < count; ++round) {
    CAPTURE(round);
    for (outcome& each : shared.outcomes) {
      each.done = each.taken = each.fault = 0;
      each.refused_by = -1;
    }
    crowd all(shared, contenders, [&](int i) {
      if (!prepare()) return 77;
      return contend(shared, i, name, options);
    });
    CHECK(support::wait_until([&] {
      int done = 0;
      for (int i = 0; i < contenders; ++i) done += shared.outcomes[i].done;
      return done == contenders;
    }));
    int winner = -1, winners = 0, wrong = 0, faults = 0;
    for (int i = 0; i < contenders; ++i)
      if (shared.outcomes[i].taken) winner = i, ++winners;
    REQUIRE(winners == 1);
    for (int i = 0; i < contenders; ++i) {
      if (i == winner) continue;
      faults += shared.outcomes[i].fault != 0;
      if (shared.outcomes[i].refused_by != all.pid(static_cast<std::size_t>(winner))) {
        ++wrong;
        MESSAGE("named " << shared.outcomes[i].refused_by.load() << " instead of "
                         << all.pid(static_cast<std::size_t>(winner)) << ", fault " << shared.outcomes[i].fault.load());
      }
      CHECK(all.end(static_cast<std::size_t>(i), 0) == 75 << 8);
    }
    CHECK(faults == 0);
    CHECK(wrong == 0);
    all.end(static_cast<std::size_t>(winner), round % 2 == 0 ? SIGKILL : SIGTERM);
    shared.holders = 0;
    CHECK(shared.most == 1);
  }
  shared.drop();
}

}  // namespace

TEST_CASE("of 64 starts at once exactly one gets the name, and the others name it") {
  support::temporary_directory directory;
  rounds_of_contenders(rounds(50, 6), {.directory = directory.path()}, [] { return true; });
}

TEST_CASE("the file lock alone keeps it to one: every contender in its own network namespace") {
  if (!possible("a network namespace", own_network)) return;
  support::temporary_directory directory;
  rounds_of_contenders(rounds(50, 4), {.directory = directory.path()}, own_network);
}

TEST_CASE("the socket lock alone keeps it to one: every contender with its own /run and /tmp") {
  if (!possible("a mount namespace", own_files)) return;
  rounds_of_contenders(rounds(50, 6), {}, own_files);
}

TEST_CASE("200 waiters have the name one at a time, and each gets its turn") {
  support::temporary_directory directory;
  const std::string name = support::unique_name("queue");
  board& shared = board::make();
  const lock_options options = {.directory = directory.path(), .wait = no_limit};
  {
    pid_lockfile first(name, options);
    crowd all(shared, 200, [&](int i) {
      std::error_code ec;
      pid_lockfile lock(name, options, ec);
      if (ec) {
        shared.outcomes[i].fault = ec.value();
        return 1;
      }
      shared.enter();
      shared.outcomes[i].taken = 1;
      shared.turns.fetch_add(1);
      shared.holders.fetch_sub(1);
      lock.release();
      return 0;
    });
    first.release();
    CHECK(support::wait_until([&] { return shared.turns.load() == 200; }, std::chrono::seconds(60)));
    for (std::size_t i = 0; i < 200; ++i) CHECK(all.end(i, 0) == 0);
  }
  CHECK(shared.most == 1);
  CHECK(shared.turns == 200);
  for (int i = 0; i < 200; ++i) CHECK(shared.outcomes[i].fault == 0);
  shared.drop();
}

namespace {

void fight(const lock_options& base, int turns, const std::function<bool()>& prepare) {
  const std::string name = support::unique_name("fight");
  board& shared = board::make();
  lock_options options = base;
  options.wait = no_limit;
  {
    crowd all(shared, 16, [&](int i) {
      if (!prepare()) return 77;
      for (int turn = 0; turn < turns; ++turn) {
        std::error_code ec;
        pid_lockfile lock(name, options, ec);
        if (ec) {
          shared.outcomes[i].fault = ec.value();
          return 1;
        }
        shared.enter();
        shared.turns.fetch_add(1);
        if (turn % 4 == 0) ::sched_yield();
        shared.holders.fetch_sub(1);
      }
      return 0;
    });
    CHECK(support::wait_until([&] { return shared.turns.load() == 16 * turns; }, std::chrono::seconds(60)));
    for (std::size_t i = 0; i < 16; ++i) CHECK(all.end(i, 0) == 0);
  }
  CHECK(shared.most == 1);
  for (int i = 0; i < 16; ++i) CHECK(shared.outcomes[i].fault == 0);
  shared.drop();
}

}  // namespace

TEST_CASE("16 that take and release without a pause never overlap") {
  support::temporary_directory directory;
  fight({.directory = directory.path()}, rounds(300, 30), [] { return true; });
}

TEST_CASE("... nor do they with the file lock alone") {
  if (!possible("a network namespace", own_network)) return;
  support::temporary_directory directory;
  fight({.directory = directory.path()}, rounds(300, 30), own_network);
}

TEST_CASE("... nor with the socket lock alone") {
  if (!possible("a mount namespace", own_files)) return;
  fight({}, rounds(300, 30), own_files);
}

TEST_CASE("two starts a moment apart never both pass") {
  support::temporary_directory directory;
  const std::string name = support::unique_name("pair");
  board& shared = board::make();
  for (int round = 0; round < rounds(1'000, 100); ++round) {
    shared.most = 0;
    shared.holders = 0;
    shared.outcomes[0].taken = shared.outcomes[1].taken = 0;
    crowd pair(shared, 2, [&](int i) {
      if (i == 1) std::this_thread::sleep_for(std::chrono::microseconds(round % 40 * 10));
      std::error_code ec;
      pid_lockfile lock(name, {.directory = directory.path()}, ec);
      if (ec) return ec == errc::already_running ? 75 : 1;
      shared.enter();
      shared.outcomes[i].taken = 1;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      shared.holders.fetch_sub(1);
      return 0;
    });
    const int a = pair.end(0, 0);
    const int b = pair.end(1, 0);
    REQUIRE((a == 0 || a == 75 << 8));
    REQUIRE((b == 0 || b == 75 << 8));
    REQUIRE(shared.outcomes[0].taken + shared.outcomes[1].taken >= 1);
    REQUIRE(shared.most == 1);
  }
  shared.drop();
}
