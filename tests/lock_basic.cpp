// pid_lockfile: one holder per name, by name, record, refusal and release.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/program.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("basic");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path();
    return result;
  }
  std::string file() const { return directory / (name + ".lock"); }
  support::program start(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + directory.path().string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return support::program(arguments);
  }
};

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a name can be taken, says so, and is free again when released") {
  place here;
  pid_lockfile lock(here.name, here.options());
  CHECK(lock.owns_lock());
  CHECK(lock.path() == here.file());
  CHECK(std::filesystem::exists(here.file()));
  lock.verify();
  lock.release();
  CHECK(!lock.owns_lock());
  CHECK(!std::filesystem::exists(here.file()));
  lock.release();
  pid_lockfile again(here.name, here.options());
  CHECK(again);
  CHECK(!again.recovered_from());
}

TEST_CASE("the first line of the lock file is the pid alone") {
  place here;
  pid_lockfile lock(here.name, here.options());
  const std::string text = contents(here.file());
  CHECK(text.substr(0, text.find('\n')) == std::to_string(::getpid()));
}

TEST_CASE("a second start is refused and told who has the name") {
  place here;
  auto holder = here.start({"version=1.4.2"});
  REQUIRE(holder.read_until("taken"));
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(ec == errc::already_running);
  CHECK(ec == std::errc::device_or_resource_busy);
  CHECK(!lock.owns_lock());
  REQUIRE(lock.holder());
  CHECK(lock.holder()->process.pid == holder.pid());
  CHECK(lock.holder()->version == "1.4.2");
  CHECK(lock.holder()->name == here.name);
  if (!lock.holder()->arguments.empty()) CHECK(lock.holder()->arguments.at(1) == here.name);  // needs /proc
  CHECK(!lock.holder()->started_from.empty());
  CHECK(lock.explanation().find(std::to_string(holder.pid())) != std::string::npos);
  CHECK(is_alive(lock.holder()->process));
}

#if INSTANCE_GUARD_EXCEPTIONS
TEST_CASE("a refusal is thrown with the holder's record") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  try {
    pid_lockfile lock(here.name, here.options());
    FAIL("was not refused");
  } catch (const already_running& refusal) {
    REQUIRE(refusal.holder());
    CHECK(refusal.holder()->process.pid == holder.pid());
    CHECK(refusal.code() == errc::already_running);
  }
}
#endif

TEST_CASE("a refused start leaves the holder's file untouched") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  struct stat before = {}, after = {};
  REQUIRE(::stat(here.file().c_str(), &before) == 0);
  const std::string text = contents(here.file());
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(ec == errc::already_running);
  REQUIRE(::stat(here.file().c_str(), &after) == 0);
  CHECK(before.st_ino == after.st_ino);
  CHECK(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
  CHECK(before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
  CHECK(contents(here.file()) == text);
}

TEST_CASE("the next holder after a crash learns whom it follows") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  const pid_t dead = holder.pid();
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  pid_lockfile lock(here.name, here.options());
  REQUIRE(lock.recovered_from());
  CHECK(lock.recovered_from()->process.pid == dead);
}

TEST_CASE("a clean end, by return or by exit, leaves nothing to recover from") {
  for (const char* way : {"", "exit\n"}) {
    CAPTURE(way);
    place here;
    auto holder = here.start();
    REQUIRE(holder.read_until("taken"));
    holder.write(way);
    holder.in().reset();
    REQUIRE(holder.wait());
    CHECK(!std::filesystem::exists(here.file()));
    pid_lockfile lock(here.name, here.options());
    CHECK(!lock.recovered_from());
  }
}

TEST_CASE("a lock in an object of static storage ends with the process, whichever thread ends it") {
  place here;
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    static pid_lockfile lock;
    std::error_code ec;
    lock = pid_lockfile(here.name, here.options(), ec);
    if (ec) ::_exit(1);
    std::thread([] { std::exit(7); }).join();
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 7);
  CHECK(!std::filesystem::exists(here.file()));
}

TEST_CASE("upper and lower case are one name") {
  place here;
  std::string upper = here.name;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  pid_lockfile lock(here.name, here.options());
  std::error_code ec;
  pid_lockfile other(upper, here.options(), ec);
  CHECK(ec == errc::already_running);
}

TEST_CASE("names outside the rule are refused, and nothing is made") {
  place here;
  const std::string bad[] = {
      "",    ".",        "..", "a/b", "../x", std::string("a\0b", 3), std::string(65, 'a'), std::string(300, 'a'),
      "a b", "\xc3\xa4", "a\n"};
  for (const std::string& name : bad) {
    CAPTURE(name);
    std::error_code ec;
    pid_lockfile lock(name, here.options(), ec);
    CHECK(ec == errc::invalid_name);
    CHECK(!lock.explanation().empty());
  }
  CHECK(std::filesystem::is_empty(here.directory.path()));
}

TEST_CASE("one process can't take a name twice, also by another path or directory") {
  place here;
  pid_lockfile lock(here.name, here.options());
  lock_options other = here.options();
  SUBCASE("the same path") {}
  SUBCASE("spelled differently") {
    other.directory = here.directory.path() / "." / ".." / here.directory.path().filename() / "";
  }
  SUBCASE("another directory") {
    if (!platform::has_socket_lock) return;
    other.directory = here.directory.path() / "other";
  }
  std::error_code ec;
  pid_lockfile second(here.name, other, ec);
  CHECK(ec == errc::already_running);
  REQUIRE(second.holder());
  CHECK(second.holder()->process.pid == ::getpid());
  CHECK(second.explanation().find("this process") != std::string::npos);
  lock.verify();
}

TEST_CASE("a lock moves with its object, and the empty one does nothing") {
  place here;
  pid_lockfile first(here.name, here.options());
  pid_lockfile second = std::move(first);
  CHECK(!first.owns_lock());
  CHECK(second.owns_lock());
  pid_lockfile third;
  CHECK(!third);
  third = std::move(second);
  third.verify();
  auto& alias = third;
  third = std::move(alias);
  CHECK(third);
  std::error_code ec;
  first.verify(ec);
  CHECK(ec == errc::lock_lost);
  CHECK(first.path().empty());
  third = pid_lockfile();
  CHECK(!std::filesystem::exists(here.file()));
}

TEST_CASE("taking and releasing leaks no descriptor and never fails") {
  place here;
  { pid_lockfile warm_up(here.name, here.options()); }
  const int before = support::open_descriptors();
  for (int i = 0; i < 2000; ++i) {
    pid_lockfile lock(here.name, here.options());
    REQUIRE(lock);
    if (i % 10 == 0) {
      std::error_code ec;
      pid_lockfile refused(here.name, here.options(), ec);
      REQUIRE(ec == errc::already_running);
    }
  }
  CHECK(support::open_descriptors() == before);
  CHECK(std::distance(std::filesystem::directory_iterator(here.directory.path()), {}) == 0);
}

TEST_CASE("descriptors 0, 1 and 2 are never used for a lock") {
  place here;
  auto holder = support::program({INSTANCE_GUARD_LOCK_HELPER, here.name, "directory=" + here.directory.path().string()},
                                 {.before_exec = [] { return ::close(2) == 0; }});
  REQUIRE(holder.read_until("taken"));
  CHECK(!std::filesystem::exists("/proc/" + std::to_string(holder.pid()) + "/fd/2"));
}

TEST_CASE("more names than a process may hold are refused with a reason, and the rest stay") {
  support::temporary_directory directory;
  const std::string name = support::unique_name("many");
  std::vector<pid_lockfile> locks;
  std::error_code ec;
  for (int i = 0; i < 200 && !ec; ++i) {
    pid_lockfile one(name + "-" + std::to_string(i), {.directory = directory.path()}, ec);
    if (!ec) locks.push_back(std::move(one));
    else CHECK(one.explanation().find("already holds") != std::string::npos);
  }
  CHECK(ec == std::errc::no_lock_available);
  CHECK(locks.size() == 64);
  for (auto& lock : locks) lock.verify();
  CHECK(static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(directory.path()), {})) ==
        locks.size());
}

TEST_CASE("a lock file has mode 0600 whatever the umask") {
  for (const mode_t mask : {mode_t{0}, mode_t{0777}}) {
    place here;
    const mode_t before = ::umask(mask);
    std::error_code ec;
    pid_lockfile lock(here.name, here.options(), ec);
    ::umask(before);
    REQUIRE(!ec);
    struct stat facts = {};
    REQUIRE(::stat(here.file().c_str(), &facts) == 0);
    CHECK((facts.st_mode & 07777) == 0600);
  }
}
