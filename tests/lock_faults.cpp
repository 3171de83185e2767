// Every system call of taking, checking and letting go fails once, in every ordinary way; and
// memory runs out at every allocation. Whatever comes of it: an error or a lock that holds, no
// second holder, and a name that is free afterwards.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

#include "support/other_user.hpp"
#include "support/stepped_process.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

namespace {
long allocations_left = -1;  // negative: no limit
}

// The whole program's: fails when the count is used up. (Not inlined: g++ would see malloc and
// delete.)
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) {
    allocations_left = 0;
    throw std::bad_alloc();
  }
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace instance_guard;

namespace {

// A sanitizer has system calls of its own, and does not bear their failing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

enum : int { all_well = 0, not_taken = 10, lost = 11 };

/// Takes, checks, and lets go; marks where it has the lock. (Marks 2 and 3: it has it.) Says how
/// that went.
int life(const std::string& name, const lock_options& options, bool file_alone) {
  if (file_alone && ::unshare(CLONE_NEWNET) != 0) return not_taken;
  std::error_code ec;
  support::stepped_process::mark();
  pid_lockfile lock(name, options, ec);
  support::stepped_process::mark();
  if (ec) return lock.owns_lock() ? 1 : not_taken;
  if (!lock.owns_lock()) return 2;
  lock.verify(ec);
  support::stepped_process::mark();
  const bool was_lost = static_cast<bool>(ec);
  lock.release();
  support::stepped_process::mark();
  return was_lost ? lost : all_well;
}

}  // namespace

TEST_CASE(
    "whichever system call fails, nobody is let in beside a holder, and the name is free "
    "afterwards") {
  bool file_alone = false;
  SUBCASE("both locks") {}
  SUBCASE("the file lock alone") {
    file_alone = support::is_root();
    if (!file_alone) return;
  }
  const char* stress = std::getenv("INSTANCE_GUARD_STRESS");
  const bool all = stress != nullptr && std::string(stress) == "full";
  for (const int error : {EIO, EINTR, EMFILE, ENOSPC, EACCES, ENOMEM, EAGAIN, ENOENT}) {
    if (!all && (error == EACCES || (file_alone && error == EMFILE))) break;
    support::temporary_directory directory;
    int faults = 0;
    for (int fail_at = 0;; ++fail_at) {
      CAPTURE(error);
      CAPTURE(fail_at);
      const std::string name = support::unique_name("fault");
      const lock_options options = {.directory = directory.path()};
      support::stepped_process one([&] { return life(name, options, file_alone); });
      if (!one.possible() || !one.run_to_mark()) {
        MESSAGE("skipped: needs ptrace");
        return;
      }
      bool at_mark = false;
      for (int i = 0; i <= fail_at && !one.ended(); ++i) {
        one.next();
        at_mark = one.number() == SYS_getppid;
      }
      if (one.ended()) break;
      CAPTURE(one.number());
      // sigprocmask can't fail, nor getpid and its like; failing a mark is no fault.
      const long number = one.number();
      if (at_mark || number == SYS_rt_sigprocmask || number == SYS_getpid || number == SYS_geteuid ||
          number == SYS_gettid || number == SYS_exit_group || number == SYS_munmap || number == SYS_futex ||
          number == SYS_clock_gettime ||
          (sanitized && (number == SYS_mmap || number == SYS_sigaltstack || number == SYS_madvise ||
                         number == SYS_brk || number == SYS_mprotect)))
        continue;
      if (!one.fail_call(error)) {
        MESSAGE("skipped: calls can't be made to fail on this machine");
        return;
      }
      ++faults;
      // Wherever it stops next: while it says that it has the lock, nobody else gets it.
      while (one.run_to_mark()) {
        std::error_code ec;
        pid_lockfile other(name, options, ec);
        if (ec) continue;
        other.release();
        const int at = one.marks();
        const int code = WEXITSTATUS(one.finish());
        if (at == 2) CHECK(code == not_taken);
        if (at == 3) CHECK(code == lost);
        break;
      }
      const int status = one.finish();
      CHECK(WIFEXITED(status));
      CHECK((WEXITSTATUS(status) == all_well || WEXITSTATUS(status) == not_taken || WEXITSTATUS(status) == lost));
      std::error_code ec;
      pid_lockfile last(name, options, ec);
      CHECK(!ec);
      last.verify(ec);
      CHECK(!ec);
    }
    CHECK(faults > 20);
  }
}

TEST_CASE("whichever allocation fails, it is an error code, and the name is free afterwards") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  int failed = 0, refused_failed = 0;
  const std::string name = support::unique_name("memory");
  for (long n = 0; n < 10'000; ++n) {
    std::error_code ec;
    bool taken = false;
    {
      allocations_left = n;
      pid_lockfile lock(name, options, ec);
      allocations_left = -1;
      taken = lock.owns_lock();
      if (taken) {
        CHECK(!ec);
        std::filesystem::remove(lock.path());
        allocations_left = n / 4;
        std::error_code why;
        lock.verify(why);
        allocations_left = -1;
        CHECK((!why || why == errc::lock_lost || why == std::errc::not_enough_memory));
        if (why) {
          lock.verify(why);
          CHECK(!why);
        }
      }
    }
    CHECK(!std::filesystem::exists(directory.path() / (name + ".lock")));
    if (taken) break;
    ++failed;
    CHECK(ec == std::errc::not_enough_memory);
  }
  CHECK(failed > 3);
  const pid_lockfile holder(name, options);
  for (long n = 0; n < 10'000; ++n) {
    std::error_code ec;
    allocations_left = n;
    pid_lockfile lock(name, options, ec);
    allocations_left = -1;
    CHECK(!lock.owns_lock());
    if (ec == errc::already_running) break;
    CHECK(ec == std::errc::not_enough_memory);
    ++refused_failed;
  }
  CHECK(refused_failed > 3);
  for (long n = 0; n < 10'000; ++n) {
    std::error_code ec;
    allocations_left = n;
    const lock_status status = query_lock(name, options, ec);
    allocations_left = -1;
    if (!ec) {
      CHECK(status.state == lock_state::held);
      break;
    }
    CHECK(ec == std::errc::not_enough_memory);
  }
}
