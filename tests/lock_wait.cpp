// Waiting for a live holder to leave, and for the children of a dead one to be ended.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/program.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("wait");
  lock_options options(std::chrono::milliseconds wait = 0ms) const {
    lock_options result;
    result.directory = directory.path();
    result.wait = wait;
    return result;
  }
  std::string file() const { return directory / (name + ".lock"); }
  support::program start(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + directory.path().string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return support::program(arguments);
  }
};

/// A holder that was killed, whose warden (a copy of its locks) lives on. Ends the warden.
struct dead_holder {
  support::program holder;
  pid_t dead = 0;
  pid_t warden = 0;

  explicit dead_holder(const place& here, const std::string& grace = "100") : holder(here.start()) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);  // pid 1 may not reap the warden
    REQUIRE(holder.read_until("taken"));
    holder.write("warden " + grace + "\n");
    const auto line = holder.read_until("warden");
    REQUIRE(line);
    warden = static_cast<pid_t>(std::atoi(line->c_str() + 7));
    REQUIRE(warden > 1);
    std::error_code ec;
    identity = process_identity::of(warden, ec);
    REQUIRE(!ec);
    dead = holder.pid();
    holder.signal(SIGKILL);
    REQUIRE(holder.wait());
  }
  ~dead_holder() { end(); }
  void end() {
    std::error_code ec;
    process_handle handle = process_handle::open(identity, ec);
    if (!ec) handle.signal(SIGKILL, ec);
    ::waitpid(warden, nullptr, __WALL);
  }
  process_identity identity = {};
};

char state(pid_t pid) {
  platform::process_stat facts;
  return platform::read_process_stat(pid, facts) == 0 ? facts.state : '-';
}

long switches(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("voluntary_ctxt_switches:")) return std::atol(line.c_str() + 24);
  return -1;
}

}  // namespace

TEST_CASE("a waiter gets the name when its holder lets go, ends or is killed") {
  for (const char* way : {"release\n", "exit\n", "crash\n"}) {
    CAPTURE(way);
    place here;
    auto holder = here.start();
    REQUIRE(holder.read_until("taken"));
    auto waiter = here.start({"wait=forever"});
    CHECK(!waiter.read_line(50ms));
    holder.write(way);
    CHECK(waiter.read_line().value_or("").starts_with("taken"));
  }
}

TEST_CASE("a waiter whose time passes is refused, and not before") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  const auto start = std::chrono::steady_clock::now();
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(120ms), ec);
  CHECK(ec == errc::already_running);
  CHECK(std::chrono::steady_clock::now() - start >= 120ms);
  REQUIRE(lock.holder());
  CHECK(lock.holder()->process.pid == holder.pid());
}

TEST_CASE("waiting costs nothing: a waiter sleeps until something happens") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  auto waiter = here.start({"wait=forever"});
  CHECK(support::wait_until([&] { return state(waiter.pid()) == 'S'; }));
  CHECK(!waiter.read_line(200ms));
  const long before = switches(waiter.pid());
  CHECK(!waiter.read_line(1s));
  CHECK(switches(waiter.pid()) - before <= 10);  // polling every 50 ms would be 20
  holder.write("release\n");
  CHECK(waiter.read_line().value_or("").starts_with("taken"));
}

TEST_CASE("a holder that is stopped still has the name") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  holder.signal(SIGSTOP);
  REQUIRE(support::wait_until([&] { return state(holder.pid()) == 'T'; }));
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(50ms), ec);
  CHECK(ec == errc::already_running);
  CHECK(query_lock(here.name, here.options()).state == lock_state::held);
  CHECK(state(holder.pid()) == 'T');
}

TEST_CASE("a waiter dies of a signal as it would without") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  auto waiter = here.start({"wait=forever"});
  CHECK(support::wait_until([&] { return state(waiter.pid()) == 'S'; }));
  waiter.signal(SIGTERM);
  const auto ended = waiter.wait();
  REQUIRE(ended);
  CHECK(ended->signal() == SIGTERM);
}

TEST_CASE("a handler runs while its program waits, and the waiting goes on") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  static volatile sig_atomic_t handled;
  handled = 0;
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) { handled = handled + 1; };
  ::sigaction(SIGALRM, &action, &before);  // no SA_RESTART
  const itimerval often = {{0, 1000}, {0, 1000}}, never = {};
  ::setitimer(ITIMER_REAL, &often, nullptr);
  std::error_code ec;
  pid_lockfile refused(here.name, here.options(100ms), ec);
  CHECK(ec == errc::already_running);
  holder.write("release\n");
  pid_lockfile lock(here.name, here.options(support::patience), ec);
  CHECK(!ec);
  for (int i = 0; i < 200; ++i) {
    lock.release();
    lock = pid_lockfile(here.name, here.options(), ec);
    CHECK(!ec);
  }
  ::setitimer(ITIMER_REAL, &never, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
  CHECK(handled > 10);
}

TEST_CASE("while a dead holder's children are being ended a start waits, and learns whom it follows") {
  place here;
  dead_holder gone(here);
  auto next = here.start();  // wait=0: that is for a live holder
  CHECK(!next.read_line(100ms));
  CHECK(query_lock(here.name, here.options()).state == lock_state::cleaning_up);
  gone.end();
  const auto line = next.read_line();
  CHECK(line.value_or("").starts_with("taken " + std::to_string(next.pid()) + " " + std::to_string(gone.dead) + " "));
}

TEST_CASE("... also when its file was removed, and only the socket is left to tell") {
  if (!platform::has_socket_lock) return;
  place here;
  {
    pid_lockfile probe(here.name, here.options());
    if (!detail::holder_by_socket(lock_scope::user, detail::lock_name(here.name))) {
      MESSAGE("skipped: this kernel does not tell who listens");
      return;
    }
  }
  dead_holder gone(here);
  std::filesystem::remove(here.file());
  auto next = here.start();
  CHECK(!next.read_line(300ms));
  CHECK(query_lock(here.name, here.options()).state == lock_state::cleaning_up);
  gone.end();
  CHECK(next.read_line().value_or("").starts_with("taken"));
}

TEST_CASE("what a dead holder left behind can be found by its mark and its warden") {
  place here;
  dead_holder gone(here, "77");
  gone.end();
  pid_lockfile lock(here.name, here.options());
  REQUIRE(lock.recovered_from());
  CHECK(lock.recovered_from()->mark == std::string(32, 'a'));
  CHECK(lock.recovered_from()->warden == gone.identity);
  CHECK(lock.recovered_from()->grace == 77ms);
}

TEST_CASE("a warden that is at work is never killed: the start gives up when its time is over") {
  place here;
  dead_holder gone(here);
  lock_options options = here.options();
  options.cleanup_wait = 150ms;
  std::error_code ec;
  pid_lockfile lock(here.name, options, ec);
  CHECK(ec == errc::still_cleaning_up);
  CHECK(ec == std::errc::device_or_resource_busy);
  REQUIRE(lock.holder());
  CHECK(lock.holder()->process.pid == gone.dead);
  CHECK(is_alive(gone.identity));
}

TEST_CASE("a stopped warden is told to go on by whoever waits for it") {
  place here;
  dead_holder gone(here);
  ::kill(gone.warden, SIGSTOP);
  REQUIRE(support::wait_until([&] { return state(gone.warden) == 'T'; }));
  lock_options options = here.options();
  options.cleanup_wait = 300ms;
  std::error_code ec;
  pid_lockfile lock(here.name, options, ec);
  CHECK(ec == errc::still_cleaning_up);
  CHECK(support::wait_until([&] { return state(gone.warden) == 'S'; }));
}

TEST_CASE("a warden that stays stopped is killed when the time is over, and the name is taken") {
  place here;
  dead_holder gone(here);
  if (::ptrace(PTRACE_ATTACH, gone.warden, nullptr, nullptr) != 0) {
    MESSAGE("skipped: can't trace a process that is no descendant");
    return;
  }
  ::waitpid(gone.warden, nullptr, __WALL);
  // However long it would wait for a living holder.
  auto next = here.start({"cleanup_wait=150", "wait=forever"});
  CHECK(support::wait_until([&] { return ::waitpid(gone.warden, nullptr, __WALL | WNOHANG) == gone.warden; }));
  CHECK(next.read_line().value_or("").starts_with("taken"));
}

TEST_CASE("a stopped process whose pid the record names, but which is another one, gets no signal") {
  place here;
  auto bystander = support::program({"sleep", "1000"});
  bystander.signal(SIGSTOP);
  REQUIRE(support::wait_until([&] { return state(bystander.pid()) == 'T'; }));
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  holder.write("clone\n");  // keeps the lock after its death
  const auto line = holder.read_until("forked");
  REQUIRE(line);
  const pid_t copy = static_cast<pid_t>(std::atoi(line->c_str() + 7));
  auto status = query_lock(here.name, here.options());
  REQUIRE(status.holder);
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  // As if the bystander had got the dead warden's pid.
  std::error_code ec;
  status.holder->warden = process_identity::of(bystander.pid(), ec);
  status.holder->warden.start_time -= 1;
  detail::record_text text;
  detail::format_record(*status.holder, text);
  std::ofstream(here.file(), std::ios::binary) << text.view();
  lock_options options = here.options();
  options.cleanup_wait = 100ms;
  pid_lockfile lock(here.name, options, ec);
  CHECK(ec == errc::still_cleaning_up);
  CHECK(state(bystander.pid()) == 'T');
  ::kill(copy, SIGKILL);
}
