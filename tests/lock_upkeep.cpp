// What keeps a lock file where it is: a shared lock on its directory and a fresh date, against tmp cleaners; and the
// directory and mode of names that all users share.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <instance_guard/lock_status.hpp>
#include <instance_guard/single_instance.hpp>
#include <sstream>
#include <string>

#include "support/forked.hpp"
#include "support/odd_place.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::odd_place;
using support::teller;
using support::wait_until;

namespace {

/// What a tmp cleaner does before it takes a directory away.
bool cleaner_gets(const std::string& directory) {
  const file_descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return opened && ::flock(opened.get(), LOCK_EX | LOCK_NB) == 0;
}

time_t date_of(const std::string& file) {
  struct stat facts = {};
  return ::stat(file.c_str(), &facts) == 0 ? facts.st_mtime : -1;
}

/// Makes a file eleven days old, and says what date that is.
time_t make_old(const std::string& file) {
  const time_t date = ::time(nullptr) - 11 * 24 * 3600;
  const timespec both[] = {{date, 0}, {date, 0}};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), both, 0) == 0);
  return date;
}

}  // namespace

TEST_CASE("while a name is held no tmp cleaner gets its directory, and several names share it") {
  odd_place here;
  CHECK(cleaner_gets(here.locks()));
  pid_lockfile one(here.name, here.options());
  CHECK_FALSE(cleaner_gets(here.locks()));
  pid_lockfile other(support::unique_name("other"), here.options());
  one.release();
  CHECK_FALSE(cleaner_gets(here.locks()));
  other.release();
  CHECK(cleaner_gets(here.locks()));
}

TEST_CASE("a killed holder's warden keeps the cleaner out until the last child is dead; the file's date says when") {
  const support::scene s;
  odd_place here;
  forked owner([&](teller test) {
    auto guard = single_instance::acquire(here.name, {.lock = here.options(), .children = {.grace = 300ms}});
    child c = guard.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    test.say(std::to_string(c.id().pid));
    for (;;) ::pause();
    return 0;
  });
  const pid_t pid = std::atoi(owner.line().value_or("0").c_str());
  REQUIRE(pid > 0);
  CHECK_FALSE(cleaner_gets(here.locks()));
  const time_t old = make_old(here.file());
  owner.signal(SIGKILL);
  CHECK(wait_until([&] {
    const bool got = cleaner_gets(here.locks());
    const bool living = support::alive(pid);  // now, so also when it was asked
    CHECK_FALSE((got && living));
    return got;
  }));
  CHECK(date_of(here.file()) > old);
  CHECK(wait_until([&] { return s.empty(); }));
  CHECK(owner.wait().signal() == SIGKILL);
}

TEST_CASE("a warden wakes once a day for the files that it keeps, and gives them a new date") {
  odd_place here;
  const std::string files[] = {here.locks() + "/one", here.locks() + "/two"};
  detail::warden_state* warden = detail::new_warden_state();
  REQUIRE(warden != nullptr);
  warden->owner_process = 0;  // any descriptor: without one it looks more often whether the owner lives
  CHECK(detail::time_to_wait(*warden) == -1);  // it keeps none yet
  for (const std::string& each : files) {
    detail::warden_lock lock;
    lock.file = ::open(each.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(lock.file >= 0);
    REQUIRE(warden->locks.push(lock));
  }
  constexpr std::int64_t day = std::int64_t{24} * 3600 * 1'000'000'000;
  const std::int64_t start = platform::sys::monotonic_now();
  warden->touch_locks_at = start + day;
  const std::int64_t pause = detail::time_to_wait(*warden);
  CHECK(pause > 0);
  CHECK(pause <= day);
  for (int days = 1; days <= 3; ++days) {
    CAPTURE(days);
    const time_t old = make_old(files[0]);
    make_old(files[1]);
    detail::touch_locks(*warden, start + days * day - 1);
    for (const std::string& each : files) CHECK(date_of(each) == old);
    detail::touch_locks(*warden, start + days * day);
    for (const std::string& each : files) CHECK(date_of(each) > old + 10 * 24 * 3600);
  }
  detail::release_locks(*warden, false);
  detail::delete_warden_state(warden);
}

TEST_CASE("names of scope host: tmpfiles.d makes the directory, else they are refused with the cure; all may read") {
  if (!support::root_only("a /run of its own")) return;
  const std::string name = support::unique_name("host");
  const std::string directory = default_lock_directory(lock_scope::host);
  CHECK(directory == "/run/lock/instance_guard");
  // The recipe's one line that is no comment: type, path, mode, user, group, age.
  std::ifstream recipe(std::string(INSTANCE_GUARD_RECIPES) + "/instance-guard.tmpfiles.conf");
  std::string line, type, path, mode, user, group, age;
  while (std::getline(recipe, line) && (line.empty() || line[0] == '#')) {
  }
  std::istringstream words(line);
  words >> type >> path >> mode >> user >> group >> age;
  REQUIRE_FALSE(words.fail());
  CHECK(type == "d");
  CHECK(path == directory);
  CHECK(user == "root");
  CHECK(group == "root");
  CHECK(age == "-");  // nothing in it is too old to stay
  const auto made = static_cast<mode_t>(std::stoul(mode, nullptr, 8));

  forked machine([&](teller test) {
    if (!support::own_mounts() || ::mount("none", "/run", "tmpfs", 0, "size=1m,mode=755") != 0 ||
        ::mkdir("/run/lock", 0755) != 0) {
      test.say("skipped: no mount namespace");
      return 0;
    }
    const lock_options host = {.scope = lock_scope::host};
    std::error_code ec;
    {
      pid_lockfile lock(name, host, ec);
      if (lock || !ec) test.say("a directory that was not there was made");
      if (lock.explanation().find(path + " does not exist") != 0) test.say(lock.explanation());
      if (lock.explanation().find("mkdir -m 1777 " + path) == std::string::npos) test.say("no cure");
    }
    ::umask(0);
    if (::mkdir(path.c_str(), made) != 0) return 1;
    ::umask(0777);
    pid_lockfile lock(name, host, ec);
    ::umask(022);
    if (ec) return test.say(lock.explanation()), 2;
    struct stat facts = {};
    if (lock.path() != path + "/" + name + ".lock") test.say("elsewhere: " + lock.path().string());
    if (::stat(lock.path().c_str(), &facts) != 0 || (facts.st_mode & 07777) != 0644) test.say("not mode 0644");
    const pid_t holder = ::getpid();
    forked other([&](teller) {  // another user, who may read it and no more
      if (!support::become(support::nobody)) return 1;
      std::error_code why;
      pid_lockfile second(name, host, why);
      if (why != errc::already_running) return 2;
      if (!second.holder() || second.holder()->process.pid != holder) return 3;
      const lock_status status = query_lock(name, host);
      if (status.state != lock_state::held || !status.holder) return 4;
      return ::open(lock.path().c_str(), O_WRONLY | O_CLOEXEC) < 0 ? 0 : 5;
    });
    if (const int code = other.wait().code(); code != 0) test.say("other user: " + std::to_string(code));
    return 0;
  });
  for (auto said = machine.line(); said; said = machine.line()) {
    if (said->starts_with("skipped")) MESSAGE(*said);
    else FAIL_CHECK(*said);
  }
  CHECK(machine.wait().code() == 0);
}
