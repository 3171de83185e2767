// An exec that does not return (a file system that does not answer) holds up nobody else.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <instance_guard/process_group.hpp>
#include <string>
#include <thread>

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

/// A program whose execve hangs while the object lives: another process holds a lease on its file
/// and does not give way, which the kernel waits for (fcntl(2), F_SETLEASE).
struct hanging_program {
  explicit hanging_program(const scene& s) : path(s / "hanging"), holder(s.start(command(s))) {
    REQUIRE(holder.read_until("ready"));
  }
  std::vector<std::string> command(const scene& s) {
    std::filesystem::copy_file("/bin/true", path);
    return s.words({"lease=" + path});
  }
  std::string path;
  support::program holder;
};

}  // namespace

TEST_CASE("others start and end while an exec hangs") {
  const scene s;
  hanging_program hanging(s);
  process_group group({.grace = 200ms});
  std::error_code late;
  std::thread stuck([&] { (void)group.spawn({hanging.path}, late); });
  CHECK(wait_until([&] { return group.members().size() == 1; }));
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    CHECK(group.spawn({"/bin/sh", "-c", "exit 3"}).wait().code() == 3);
    CHECK(std::chrono::steady_clock::now() - start < 5s);
  }
  CHECK(group.warden_alive());
  CHECK(group.terminate().proven_empty);  // also of the one that hangs
  stuck.join();
  CHECK(group.spawn({"/bin/true"}).wait().success());
}

TEST_CASE("an exec that returns late is answered then") {
  const scene s;
  process_group group;
  child c;
  {
    hanging_program hanging(s);
    std::thread stuck([&] { c = group.spawn({hanging.path}); });
    CHECK(wait_until([&] { return group.members().size() == 1; }));
    hanging.holder.signal(SIGKILL);
    stuck.join();
  }
  CHECK(c.wait().success());
}

TEST_CASE("the owner's death is seen while an exec hangs") {
  const scene s;
  hanging_program hanging(s);
  forked owner([&](teller test) {
    process_group group({.grace = 100ms});
    child c = group.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    std::thread stuck([&] { (void)group.spawn({hanging.path}); });
    if (!wait_until([&] { return group.members().size() == 2; })) return 2;
    test.say(std::to_string(group.warden().pid));
    for (;;) ::pause();
    return 0;
  });
  const pid_t warden = std::atoi(owner.line().value_or("0").c_str());
  REQUIRE(warden > 0);
  owner.signal(SIGKILL);
  owner.wait();
  CHECK(wait_until([&] { return !support::alive(warden); }));
  CHECK(support::processes_with(s.helper()).size() == 1);  // who holds the lease
}
