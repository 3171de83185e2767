// verify(): still the one holder, and what is done when the file is gone.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/open_descriptors.hpp"
#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("verify");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path() / "locks";
    return result;
  }
  std::string file() const { return directory / ("locks/" + name + ".lock"); }
  support::program start(support::start_options how = {}) const {
    return support::program({INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + options().directory.string()},
                            std::move(how));
  }
};

ino_t inode_of(const std::string& path) {
  struct stat facts = {};
  return ::stat(path.c_str(), &facts) == 0 ? facts.st_ino : 0;
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

void check_held(const place& here, pid_lockfile& lock) {
  std::error_code ec;
  lock.verify(ec);
  CHECK(!ec);
  CHECK(first_line(here.file()) == std::to_string(::getpid()));
  auto other = here.start();
  CHECK(other.read_line().value_or("").starts_with("refused " + std::to_string(::getpid())));
  const auto status = query_lock(here.name, here.options(), ec);
  CHECK(status.state == lock_state::held);
}

// What a group would do, written down.
struct witness {
  int replaced = 0, dropped = 0;
  bool well = true, takes = true;
  bool old_was_open = false;
};
witness seen;

detail::lock_keeper test_keeper() {
  detail::lock_keeper keeper;
  keeper.group_slot = 0;
  keeper.drop = [](int, int) noexcept { return ++seen.dropped > 0; };
  keeper.replace = [](int, int) noexcept {
    ++seen.replaced;
    return seen.takes;
  };
  keeper.healthy = [](int) noexcept { return seen.well; };
  return keeper;
}

}  // namespace

TEST_CASE("a lock file that was removed is put back") {
  place here;
  pid_lockfile lock(here.name, here.options());
  const int before = support::open_descriptors();
  for (int i = 0; i < 3; ++i) {
    REQUIRE(std::filesystem::remove(here.file()));
    check_held(here, lock);
  }
  CHECK(support::open_descriptors() == before);
  lock.release();
  CHECK(std::filesystem::is_empty(here.options().directory));
}

TEST_CASE("a lock directory that was removed is made again") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove_all(here.options().directory);
  check_held(here, lock);
  lock.release();
  CHECK(!std::filesystem::exists(here.file()));
}

TEST_CASE("a file that was put in the lock file's place is taken over") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove(here.file());
  SUBCASE("empty") { std::ofstream(here.file()).flush(); }
  SUBCASE("longer than a record") { std::ofstream(here.file()) << std::string(100'000, 'x'); }
  check_held(here, lock);
  CHECK(std::filesystem::file_size(here.file()) < 4097);
}

TEST_CASE("a file that somebody else has locked is a lost lock, and stays") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove(here.file());
  std::ofstream(here.file()) << "1\n";
  const int other = ::open(here.file().c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(::flock(other, LOCK_EX | LOCK_NB) == 0);
  std::error_code ec;
  lock.verify(ec);
  CHECK(ec == errc::lock_lost);
  lock.release();
  CHECK(first_line(here.file()) == "1");
  ::close(other);
}

TEST_CASE("another holder that got in by the file, because the socket did not see it, is noticed") {
  if (!support::is_root()) {
    MESSAGE("skipped: a network namespace needs root");
    return;
  }
  place here;
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove(here.file());
  auto other = here.start({.before_exec = [] { return ::unshare(CLONE_NEWNET) == 0; }});
  REQUIRE(other.read_line().value_or("").starts_with("taken"));
  std::error_code ec;
  lock.verify(ec);
  CHECK(ec == errc::lock_lost);
  lock.release();
  other.write("verify\n");
  CHECK(other.read_line() == "ok");
}

TEST_CASE(
    "a lock whose descriptors the program closed is lost, and what has their numbers now is left "
    "alone") {
  place here;
  pid_lockfile lock(here.name, here.options());
  detail::lock_slot& slot = detail::slot_of(lock);
  const int numbers[] = {slot.lock.get(), slot.socket.get(), slot.directory.get()};
  for (const int number : numbers)
    if (number >= 0) ::close(number);
  const std::string mine = here.directory / "mine";
  int opened[3];
  for (int& each : opened) each = ::open(mine.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  std::error_code ec;
  lock.verify(ec);
  CHECK(ec == errc::lock_lost);
  lock.release();
  for (const int each : opened) CHECK(::fcntl(each, F_GETFD) >= 0);
  for (const int each : opened) ::close(each);
  CHECK(std::filesystem::exists(here.file()));  // somebody else's by now, for all this process knows
  pid_lockfile again(here.name, here.options());
  CHECK(again);
}

TEST_CASE("release leaves a stranger's file in place, and finds its own in a renamed directory") {
  place here;
  pid_lockfile lock(here.name, here.options());
  SUBCASE("a stranger's file") {
    std::filesystem::remove(here.file());
    std::ofstream(here.file()) << "stranger\n";
    lock.release();
    CHECK(first_line(here.file()) == "stranger");
  }
  SUBCASE("a renamed directory") {
    const std::filesystem::path moved = here.directory / "moved";
    std::filesystem::rename(here.options().directory, moved);
    lock.release();
    CHECK(std::filesystem::is_empty(moved));
  }
}

TEST_CASE("the path is absolute: changing the working directory changes nothing") {
  place here;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(here.directory.path());
  lock_options options;
  options.directory = "locks";
  pid_lockfile lock(here.name, options);
  std::filesystem::current_path("/");
  CHECK(lock.path() == here.file());
  lock.verify();
  std::filesystem::remove(here.file());
  lock.verify();
  CHECK(std::filesystem::exists(here.file()));
  std::filesystem::current_path(before);
}

TEST_CASE("verify asks the keeper, and hands it the new file before the old one is closed") {
  place here;
  seen = {};
  pid_lockfile lock(here.name, here.options());
  detail::lock_set_keeper(detail::slot_of(lock), test_keeper());
  std::error_code ec;
  lock.verify(ec);
  CHECK(!ec);
  seen.well = false;
  lock.verify(ec);
  CHECK(ec == errc::warden_lost);
  seen.well = true;
  std::filesystem::remove(here.file());
  lock.verify(ec);
  CHECK(!ec);
  CHECK(seen.replaced == 1);
  std::filesystem::remove(here.file());
  seen.takes = false;
  lock.verify(ec);
  CHECK(ec == errc::warden_lost);
  // Kept: the keeper unlinks, not this process.
  const ino_t file = inode_of(here.file());
  lock.release();
  CHECK(seen.dropped == 1);
  CHECK(inode_of(here.file()) == file);
}

TEST_CASE("locks that a group keeps are not released on the way out, the others are") {
  place here;
  seen = {};
  pid_lockfile kept(here.name, here.options());
  pid_lockfile free(here.name + "-2", here.options());
  detail::lock_set_keeper(detail::slot_of(kept), test_keeper());
  detail::lock_release_all_unkept();
  CHECK(!free.owns_lock());
  CHECK(kept.owns_lock());
  CHECK(std::filesystem::exists(here.file()));
  CHECK(!std::filesystem::exists(free.path()));
  detail::lock_close_kept(1);
  CHECK(kept.owns_lock());
  detail::lock_close_kept(0);
  CHECK(!kept.owns_lock());
  CHECK(std::filesystem::exists(here.file()));
  CHECK(seen.dropped == 0);
}

TEST_CASE("a record is updated in place") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::error_code ec;
  lock_record changes = lock.record();
  changes.warden = process_identity::self();
  changes.mark = std::string(32, 'b');
  changes.grace = std::chrono::milliseconds(1234);
  changes.arguments = std::vector<std::string>{"a", "b c", "\n%"};
  const ino_t file = inode_of(here.file());
  detail::lock_update_record(lock, changes, ec);
  CHECK(!ec);
  CHECK(inode_of(here.file()) == file);
  const auto status = query_lock(here.name, here.options());
  REQUIRE(status.holder);
  CHECK(status.holder->warden == process_identity::self());
  CHECK(status.holder->mark == std::string(32, 'b'));
  CHECK(status.holder->grace == std::chrono::milliseconds(1234));
  CHECK(status.holder->arguments == changes.arguments);
  // ... and survives being put back.
  std::filesystem::remove(here.file());
  lock.verify();
  CHECK(query_lock(here.name, here.options()).holder->mark == std::string(32, 'b'));
}
