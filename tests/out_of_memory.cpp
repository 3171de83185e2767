// The noexcept forms where there is no memory: they report it, and nothing ends the program.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <instance_guard/instance_guard.hpp>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

namespace {
long allocations_left = -1;  // negative: no limit
}

// The whole program's: fails once the count is used up. (Not inlined: g++ would see malloc and delete.)
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

/// Calls it with memory for 0, 1, 2, ... allocations, until that is enough. `call` takes the error
/// code, and tells whether what it got is right; it allocates nothing itself.
template <class Call>
void starve(const char* what, Call call) {
  INFO(std::string(what));
  const int before = support::open_descriptors();
  long starved = 0;
  long wrong = 0;
  for (bool enough = false; !enough; ++starved) {
    std::error_code ec;
    allocations_left = starved;
    const bool right = call(ec);
    enough = allocations_left > 0;
    allocations_left = -1;
    const bool reported = ec == std::errc::not_enough_memory;
    if (!(reported || (!ec && right)) || (enough && reported)) ++wrong;
  }
  CHECK(starved > 1);
  CHECK(wrong == 0);
  CHECK(support::open_descriptors() == before);
}

}  // namespace

TEST_CASE("without memory a start says so, and holds nothing") {
  const std::string name = support::unique_name("starved");
  { const single_instance first = single_instance::acquire(name); }  // what is made once is made
  single_instance_options options;
  options.also_hold = {name + "-wallet-with-quite-a-long-name"};
  starve("acquire", [&](std::error_code& ec) noexcept { return !!single_instance::acquire(name, ec) == !ec; });
  starve("acquire with options",
         [&](std::error_code& ec) noexcept { return !!single_instance::acquire(name, options, ec) == !ec; });
  starve("pid_lockfile", [&](std::error_code& ec) noexcept { return !!pid_lockfile(name, ec) == !ec; });
  starve("signal_cleanup", [&](std::error_code& ec) noexcept { return !!signal_cleanup(ec) == !ec; });
  CHECK(query_lock(name).state == lock_state::free);
}

TEST_CASE("without memory acquire_or_exit exits with 73") {
  const std::string name = support::unique_name("starved");
  const single_instance_options options;
  int last = -1;
  for (long starved = 0; last != 0 && starved < 1000; ++starved) {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      ::alarm(60);
      ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
      allocations_left = starved;
      single_instance guard = single_instance::acquire_or_exit(name, options);
      allocations_left = -1;
      guard.release();
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(pid, &status, 0);
    last = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (last != 0 && last != 73) FAIL("with " << starved << " allocations: wait status " << status);
  }
  CHECK(last == 0);
}

TEST_CASE("without memory a guard says so, and goes on") {
  single_instance guard = single_instance::acquire(support::unique_name("starved"));
  const std::vector<std::string> arguments = {"sh", "-c", "read line; echo \"$line\""};
  const std::vector<std::string> plain = {"true"};
  run_options options;
  options.input = "a line that is longer than what a string keeps in itself\n";
  starve("spawn", [&](std::error_code& ec) noexcept {
    child one = guard.spawn(plain, ec);
    std::error_code ended;
    return !one == !!ec && (!one || one.wait(ended).exited());
  });
  starve("run", [&](std::error_code& ec) noexcept {
    const run_result result = guard.run(arguments, options, ec);
    return result.out == options.input && result.status.success();
  });
  starve("verify", [&](std::error_code& ec) noexcept {
    ::unlink(guard.lockfile().path().c_str());  // it puts the file back
    guard.verify(ec);
    return true;
  });
  CHECK_NOTHROW(guard.verify());
  CHECK(guard.children().members().empty());
}

TEST_CASE("without memory a question says so, and its answer is never half of the truth") {
  const support::temporary_directory directory;
  lock_options options;
  options.directory = directory.path();
  const std::string name = support::unique_name("starved");
  const pid_lockfile held(name, options);
  const pid_lockfile other(name + "-b", options);
  starve("query_lock", [&](std::error_code& ec) noexcept {
    const lock_status status = query_lock(name, options, ec);
    return status.state == lock_state::held && status.holder && status.holder->process == process_identity::self();
  });
  starve("list_locks", [&](std::error_code& ec) noexcept { return list_locks(options, ec).size() >= 2; });
  starve("refused", [&](std::error_code& ec) noexcept {
    std::error_code refused;
    const pid_lockfile second(name, options, refused);
    if (refused == std::errc::not_enough_memory) ec = refused;
    return refused == errc::already_running && second.holder().has_value();
  });
  starve("process_table", [&](std::error_code& ec) noexcept {
    return process_table::read(ec).find(process_identity::self().pid) != nullptr;
  });
  // Of three rows: each allocation more is another census.
  const process_table all = process_table::read();
  std::vector<process_info> rows;
  for (const pid_t pid : {pid_t{1}, ::getppid(), ::getpid()})
    if (const process_info* row = all.find(pid)) rows.push_back(*row);
  const process_table few = process_table::of(rows);
  starve("take_census", [&](std::error_code& ec) noexcept {
    const census taken = take_census(few, ec);
    return taken.ghosts.empty() || !ec;
  });
  starve("managers_of", [&](std::error_code& ec) noexcept { return managers_of(few, ec).size() == few.size(); });
}
