// A guard is complete, or it was never there: whatever system call a signal meets it at.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <instance_guard/instance_guard.hpp>
#include <iterator>
#include <string>

#include "support/forked.hpp"
#include "support/rounds.hpp"
#include "support/stepped_process.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"
#include "support/wait_until.hpp"

using namespace instance_guard;
using support::stepped_process;
using support::wait_until;

namespace {

/// Takes the name between two marks, and gives it back.
int take(const std::string& name, const lock_options& options) {
  stepped_process::mark();
  std::error_code ec;
  const auto guard = single_instance::acquire(name, {.lock = options}, ec);
  stepped_process::mark();
  return ec ? 1 : 0;
}

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A holder that was killed together with its warden: what marks its strays, as its file says.
std::string leave_strays(const std::string& name, const lock_options& options) {
  support::forked holder([&](support::teller test) {
    auto guard = single_instance::acquire(name, {.lock = options});
    test.say(std::to_string(guard.lockfile().record().warden.pid));
    test.say(guard.lockfile().record().mark);
    for (;;) ::pause();
    return 0;
  });
  const pid_t warden = std::stoi(holder.line().value_or("0"));
  const std::string mark = holder.line().value_or("");
  if (warden > 1) {
    ::kill(warden, SIGSTOP);  // else it could begin between the two
    holder.signal(SIGKILL);
    ::kill(warden, SIGKILL);
  }
  holder.wait();
  return mark.substr(0, mark.find(':'));
}

enum class reached { point, end, nothing };

/// Lets a start make `after` system calls. `end`: it was through before; `nothing`: it can't be stepped here.
reached step_into(stepped_process& one, int after) {
  if (!one.possible() || !one.run_to_mark()) {
    MESSAGE("skipped: no ptrace here");
    return reached::nothing;
  }
  for (int i = 0; i < after && !one.ended() && one.marks() < 2; ++i) one.next();
  return one.ended() || one.marks() == 2 ? reached::end : reached::point;
}

/// True if a SIGTERM now would be heard before the next system call is over: it is not blocked, and the call changes
/// neither a file nor what is blocked.
bool hears_at_once(const stepped_process& one) {
  const std::string status = content("/proc/" + std::to_string(one.pid()) + "/status");
  const std::size_t blocked = status.find("SigBlk:\t");
  if (blocked == std::string::npos || one.number() == SYS_pwrite64 || one.number() == SYS_rt_sigprocmask) return false;
  return (std::strtoull(status.c_str() + blocked + 8, nullptr, 16) >> (SIGTERM - 1) & 1) == 0;
}

/// Sends SIGTERM where `one` stands. Its status.
int terminate(stepped_process& one) {
  ::kill(one.pid(), SIGTERM);
  while (one.next()) {
  }
  return one.status();
}

}  // namespace

TEST_CASE("SIGTERM at any system call of a start leaves the name as if there had been no start") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  const int stride = support::rounds(1, 9);
  int points = 0;
  for (int after = 0;; after += stride) {
    const std::string name = support::unique_name("term");
    stepped_process one([&] { return take(name, options); });
    const reached where = step_into(one, after);
    if (where == reached::nothing) return;
    if (where == reached::end) break;
    CAPTURE(after);
    CAPTURE(one.number());
    ++points;
    const int status = terminate(one);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGTERM);
    CHECK(wait_until([&] { return query_lock(name, options).state == lock_state::free; }));
    CHECK(!std::filesystem::exists(directory.path() / (name + ".lock")));
  }
  CHECK(points > 10);
}

TEST_CASE("but the file stays as long as a dead holder's strays are to be ended") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  const int stride = support::rounds(3, 29);
  int pending = 0;
  for (int after = 0;; after += stride) {
    const std::string name = support::unique_name("duty");
    const std::string file = directory / (name + ".lock");
    const std::string mark = leave_strays(name, options);
    REQUIRE(mark.size() > 10);
    stepped_process one([&] { return take(name, options); });
    const reached where = step_into(one, after);
    if (where == reached::nothing) return;
    if (where == reached::end) break;
    CAPTURE(after);
    CAPTURE(one.number());
    // What was begun with signals blocked is finished: the duty may be done by then.
    const bool to_do = hears_at_once(one) && content(file).find(mark) != std::string::npos;
    terminate(one);
    if (!to_do) continue;
    ++pending;
    CHECK(content(file).find(mark) != std::string::npos);
  }
  CHECK(pending > 3);
}
