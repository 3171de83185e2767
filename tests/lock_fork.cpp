// Locks and copies of their process: fork in all its forms, exec, threads, hand-over.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/program.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("fork");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path();
    return result;
  }
  std::string file() const { return directory / (name + ".lock"); }
  support::program start() const {
    return support::program({INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + directory.path().string()});
  }
  /// Takes the name from another process; the code, errors other than a refusal included.
  int try_from_outside() const {
    auto other = start();
    other.in().reset();
    const auto ended = other.wait();
    return ended && ended->exited() ? ended->code() : -1;
  }
};

/// Runs `work` in a forked child and reaps it: its exit code.
int in_child(const std::function<int()>& work, bool through_exit = false) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    const int code = work();
    if (through_exit) std::exit(code);
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Whether the kernel tells who listens on a socket (SO_PEERPIDFD).
bool peers_can_be_told() {
  place here;
  pid_lockfile lock(here.name, here.options());
  return detail::holder_by_socket(lock_scope::user, detail::lock_name(here.name)).has_value();
}

pid_t number_in(const std::optional<std::string>& line) {
  return line ? static_cast<pid_t>(std::atoi(line->c_str() + line->find(' ') + 1)) : 0;
}

}  // namespace

TEST_CASE("a forked child does not have its parent's lock, and can't end it") {
  place here;
  pid_lockfile lock(here.name, here.options());
  CHECK(in_child([&] {
          if (lock.owns_lock()) return 1;
          std::error_code ec;
          lock.verify(ec);
          if (ec != errc::lock_lost) return 2;
          lock.release();
          pid_lockfile moved = std::move(lock);
          pid_lockfile again(here.name, here.options(), ec);
          if (ec != errc::already_running) return 3;
          if (!again.holder() || again.holder()->process.pid != ::getppid()) return 4;
          return 0;
        }) == 0);
  lock.verify();
  CHECK(std::filesystem::exists(here.file()));
  CHECK(here.try_from_outside() == 75);
}

TEST_CASE("a forked child that returns from main leaves its parent's lock alone") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  holder.write("fork\n");
  const pid_t child = number_in(holder.read_until("forked"));
  REQUIRE(child > 0);
  ::kill(child, SIGTERM);
  holder.write("verify\n");
  CHECK(holder.read_line() == "ok");
  CHECK(here.try_from_outside() == 75);
}

TEST_CASE("a forked child does not keep the name after its parent died") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  holder.write("fork\n");
  const pid_t child = number_in(holder.read_until("forked"));
  REQUIRE(child > 0);
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  CHECK(here.try_from_outside() == 0);
  ::kill(child, SIGKILL);
}

TEST_CASE("a copy made without fork handlers does not unlink, and ends its copy of the lock") {
  place here;
  pid_lockfile lock(here.name, here.options());
  const pid_t pid = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) {
    if (lock.owns_lock()) ::_exit(1);
    std::error_code ec;
    lock.verify(ec);
    if (ec != errc::lock_lost) ::_exit(2);
    lock.release();
    detail::lock_release_all_unkept();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(status == 0);
  lock.verify();
  CHECK(here.try_from_outside() == 75);
}

TEST_CASE("a copy made without handlers that never asks keeps the name: it is reported as cleaning up") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  holder.write("clone\n");
  const pid_t copy = number_in(holder.read_until("forked"));
  REQUIRE(copy > 0);
  const pid_t dead = holder.pid();
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  lock_options options = here.options();
  options.cleanup_wait = std::chrono::milliseconds(50);
  std::error_code ec;
  pid_lockfile lock(here.name, options, ec);
  CHECK(ec == errc::still_cleaning_up);
  REQUIRE(lock.holder());
  CHECK(lock.holder()->process.pid == dead);
  ::kill(copy, SIGKILL);
  options.wait = options.cleanup_wait.emplace(support::patience);
  pid_lockfile next(here.name, options, ec);
  CHECK(!ec);
}

TEST_CASE("a child of vfork changes nothing, also when it leaves through exit handlers' code") {
  place here;
  pid_lockfile lock(here.name, here.options());
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
  const pid_t pid = ::vfork();
  if (pid == 0) {
    detail::lock_release_all_unkept();
    lock.release();
    ::_exit(0);
  }
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
  ::waitpid(pid, nullptr, 0);
  lock.verify();
  CHECK(std::filesystem::exists(here.file()));
  CHECK(here.try_from_outside() == 75);
  lock.release();
  CHECK(!std::filesystem::exists(here.file()));
}

TEST_CASE("programs that are started inherit no descriptor of a lock") {
  place here;
  pid_lockfile lock(here.name, here.options());
  const int lock_file = detail::slot_of(lock).lock.get();
  for (const detail::slot_file* const each :
       {&detail::slot_of(lock).lock, &detail::slot_of(lock).socket, &detail::slot_of(lock).directory}) {
    if (each->get() < 0) continue;  // no socket lock on this system
    CHECK(each->get() > 2);
    CHECK((::fcntl(each->get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
  const std::string command = "test -e /proc/self/fd/" + std::to_string(lock_file);
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 1);
}

TEST_CASE("exec lets the name go") {
  place here;
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    pid_lockfile lock(here.name, here.options());
    ::dup2(gate[0], 0);
    ::close(gate[0]);
    ::close(gate[1]);
    ::execlp("cat", "cat", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::close(gate[0]);
  CHECK(support::wait_until([&] { return here.try_from_outside() == 0; }));
  ::close(gate[1]);
  ::waitpid(pid, nullptr, 0);
}

TEST_CASE("after daemon(3) the copy does not hold the name") {
  place here;
  int answer[2];
  REQUIRE(::pipe(answer) == 0);
  CHECK(in_child([&] {
          pid_lockfile lock(here.name, here.options());
          if (::daemon(1, 1) != 0) return 1;  // the parent leaves by _exit
          char said = lock.owns_lock() ? 'y' : 'n';
          if (::write(answer[1], &said, 1) != 1) return 1;
          return 0;
        }) == 0);
  char said = 0;
  CHECK(::read(answer[0], &said, 1) == 1);
  CHECK(said == 'n');
  ::close(answer[0]);
  ::close(answer[1]);
  CHECK(here.try_from_outside() == 0);
}

TEST_CASE("a fork in another thread never takes along a lock that is just being taken") {
  place here;
  std::atomic<bool> stop{false};
  std::atomic<int> forks{0};
  std::thread forker([&] {
    std::vector<pid_t> children;
    for (;;) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::alarm(120);
        ::pause();
        ::_exit(0);
      }
      children.push_back(pid);
      forks.fetch_add(1);
      if (children.size() == 200) break;
    }
    while (!stop) std::this_thread::yield();
    for (const pid_t pid : children) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  });
  int refused = 0, taken = 0;
  while (forks < 200) {
    std::error_code ec;
    pid_lockfile lock(here.name, here.options(), ec);
    ec ? ++refused : ++taken;
  }
  stop = true;
  forker.join();
  CHECK(refused == 0);
  CHECK(taken > 0);
}

TEST_CASE("threads take and release names of their own at once, and one name one at a time") {
  place here;
  const int before = support::open_descriptors();
  std::atomic<int> holders{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        std::error_code ec;
        pid_lockfile own(here.name + "-" + std::to_string(t), here.options(), ec);
        if (ec) ++wrong;
        lock_options patient = here.options();
        patient.wait = support::patience;
        pid_lockfile shared(here.name, patient, ec);
        if (ec) ++wrong;
        if (holders.fetch_add(1) != 0) ++wrong;
        holders.fetch_sub(1);
        own.verify(ec);
        if (ec) ++wrong;
      }
    });
  for (std::thread& each : threads) each.join();
  CHECK(wrong == 0);
  CHECK(support::open_descriptors() == before);
}

TEST_CASE("any thread may verify, also while the file is being put back") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::atomic<int> wrong{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      while (!stop) {
        std::error_code ec;
        lock.verify(ec);
        if (ec) ++wrong;
      }
    });
  for (int i = 0; i < 100; ++i) {
    std::filesystem::remove(here.file());
    CHECK(support::wait_until([&] { return std::filesystem::exists(here.file()); }));
  }
  stop = true;
  for (std::thread& each : threads) each.join();
  CHECK(wrong == 0);
}

TEST_CASE("locks handed over are never free, and belong to the child alone") {
  place here;
  int told[2], go[2];
  REQUIRE(::pipe(told) == 0);
  REQUIRE(::pipe(go) == 0);
  const pid_t first = ::fork();
  if (first == 0) {
    pid_lockfile lock(here.name, here.options());
    detail::lock_hand_over_begin();
    const pid_t second = ::fork();
    if (second == 0) {
      std::error_code ec;
      detail::lock_take_over(ec);
      if (!lock.owns_lock()) ::_exit(9);
      pid_t self = ec ? -1 : ::getpid();
      if (::write(told[1], &self, sizeof self) < 0) ::_exit(9);
      char c = 0;
      if (::read(go[0], &c, 1) < 0) ::_exit(9);
      lock.verify(ec);
      lock.release();
      self = ec ? -1 : 0;
      if (::write(told[1], &self, sizeof self) < 0) ::_exit(9);
      ::_exit(0);
    }
    pid_t owner = 0;
    if (::read(told[0], &owner, sizeof owner) != sizeof owner || owner != second) ::_exit(8);
    detail::lock_hand_over_end(true);
    if (lock.owns_lock()) ::_exit(7);
    if (::write(told[1], &owner, sizeof owner) < 0) ::_exit(6);
    std::exit(0);  // takes nothing with it
  }
  int status = -1;
  ::waitpid(first, &status, 0);
  CHECK(status == 0);
  pid_t owner = 0;
  REQUIRE(::read(told[0], &owner, sizeof owner) == sizeof owner);
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(ec == errc::already_running);
  REQUIRE(lock.holder());
  CHECK(lock.holder()->process.pid == owner);
  CHECK(is_alive(lock.holder()->process));
  // The socket names the new owner as well.
  const auto seen = detail::holder_by_socket(lock_scope::user, detail::lock_name(here.name));
  CHECK(seen.has_value() == peers_can_be_told());
  if (seen) CHECK(seen->process == lock.holder()->process);
  CHECK(::write(go[1], "x", 1) == 1);
  pid_t last = -1;
  CHECK(::read(told[0], &last, sizeof last) == sizeof last);
  CHECK(last == 0);
  CHECK(!std::filesystem::exists(here.file()));
  for (const int end : {told[0], told[1], go[0], go[1]}) ::close(end);
}

TEST_CASE("a hand-over that fails leaves the locks where they were") {
  place here;
  pid_lockfile lock(here.name, here.options());
  detail::lock_hand_over_begin();
  CHECK(in_child([] { return 0; }) == 0);
  detail::lock_hand_over_end(false);
  lock.verify();
  CHECK(here.try_from_outside() == 75);
}

TEST_CASE("a signal handler's release unlinks the file, once") {
  place here;
  const pid_t pid = ::fork();
  if (pid == 0) {
    pid_lockfile lock(here.name, here.options());
    ::signal(SIGTERM, [](int) {
      detail::lock_release_all_unkept();
      detail::lock_release_all_unkept();
      ::_exit(3);
    });
    ::raise(SIGTERM);
    ::_exit(4);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(!std::filesystem::exists(here.file()));
}
