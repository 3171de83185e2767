// replace: stopping a live holder, and only a holder.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/deny_system_calls.hpp"
#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"
#include "support/wait_until.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("replace");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path();
    result.replace = true;
    return result;
  }
  std::string file() const { return directory / (name + ".lock"); }
  support::program start(support::start_options how = {}, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + directory.path().string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return support::program(arguments, std::move(how));
  }
  void rewrite(const lock_record& record) const {
    detail::record_text text;
    detail::format_record(record, text);
    std::ofstream(file(), std::ios::binary) << text.view();
  }
};

lock_options options_without_replace(const place& here) {
  lock_options result = here.options();
  result.replace = false;
  return result;
}

char state(pid_t pid) {
  platform::process_stat facts;
  return platform::read_process_stat(pid, facts) == 0 ? facts.state : '-';
}

/// It sleeps, as it was told to: it is neither ended nor stopped. One that has just begun takes a moment.
bool lives(pid_t pid) {
  return support::wait_until([&] { return state(pid) == 'S'; });
}

}  // namespace

TEST_CASE("a holder is asked to leave, and leaves") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(!ec);
  const auto ended = holder.wait();
  REQUIRE(ended);
  CHECK(ended->signal() == SIGTERM);
  REQUIRE(lock.recovered_from());
  CHECK(lock.recovered_from()->process.pid == holder.pid());
}

TEST_CASE("a holder that ignores SIGTERM, or is stopped, is killed after its grace and two seconds") {
  place here;
  auto holder = here.start({.before_exec = [] { return ::signal(SIGTERM, SIG_IGN) != SIG_ERR; }});
  REQUIRE(holder.read_until("taken"));
  bool stopped = false;
  SUBCASE("ignores") {}
  SUBCASE("is stopped") {
    stopped = true;
    holder.signal(SIGSTOP);
    REQUIRE(support::wait_until([&] { return state(holder.pid()) == 'T'; }));
  }
  CAPTURE(stopped);
  const auto begin = std::chrono::steady_clock::now();
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(!ec);
  CHECK(std::chrono::steady_clock::now() - begin >= 2s);
  const auto ended = holder.wait();
  REQUIRE(ended);
  CHECK(ended->signal() == SIGKILL);
}

TEST_CASE("it works without pidfds too") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  auto other = here.start({.before_exec =
                               [] {
                                 return support::deny_system_calls({SYS_pidfd_open, SYS_pidfd_send_signal}, ENOSYS);
                               }},
                          {"replace"});
  CHECK(other.read_line().value_or("").starts_with("taken"));
  CHECK(holder.wait().has_value());
}

TEST_CASE("this process, and its ancestors, are never replaced") {
  place here;
  lock_options plain = here.options();
  plain.replace = false;
  pid_lockfile lock(here.name, plain);
  std::error_code ec;
  pid_lockfile self(here.name, here.options(), ec);
  CHECK(ec == errc::already_running);
  auto child = here.start({}, {"replace"});
  const auto line = child.read_line();
  CHECK(line.value_or("").starts_with("refused " + std::to_string(::getpid())));
  lock.verify();
}

TEST_CASE("a record that names a process which is not the holder gets nobody killed") {
  place here;
  auto bystander = support::program({"sleep", "1000"});
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  auto status = query_lock(here.name, here.options());
  REQUIRE(status.holder);
  std::error_code ec;
  SUBCASE("the whole identity of another") { status.holder->process = process_identity::of(bystander.pid(), ec); }
  SUBCASE("a pid whose process is another by now") { status.holder->process.pid = bystander.pid(); }
  here.rewrite(*status.holder);
  const bool can_tell = detail::holder_by_socket(lock_scope::user, detail::lock_name(here.name)).has_value();
  if (!can_tell) {
    MESSAGE("skipped: this kernel does not tell who listens");
    return;
  }
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(lives(bystander.pid()));
  // Either nobody was replaced, or the one who really had it.
  if (!ec) CHECK(holder.wait().has_value());
}

TEST_CASE("in scope host a record can't make root kill a process of another user than its writer") {
  if (!support::is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  place here;
  ::chmod(here.directory.path().c_str(), 01777);
  auto victim = support::program({"sleep", "1000"});  // root's
  auto mallory = here.start({.before_exec = [] { return support::become(support::nobody); }}, {"host"});
  REQUIRE(mallory.read_line().value_or("").starts_with("taken"));
  lock_options options = here.options();
  options.scope = lock_scope::host;
  auto status = query_lock(here.name, options);
  REQUIRE(status.holder);
  std::error_code ec;
  status.holder->process = process_identity::of(victim.pid(), ec);
  status.holder->warden = status.holder->process;
  status.holder->uid = 0;
  here.rewrite(*status.holder);
  // Also without the socket's word: by the file alone.
  const int code = [&] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (!support::deny_system_calls({SYS_connect}, EACCES)) ::_exit(77);
      std::error_code why;
      pid_lockfile lock(here.name, options, why);
      ::_exit(why == errc::already_running ? 0 : 1);
    }
    int result = 0;
    ::waitpid(pid, &result, 0);
    return WEXITSTATUS(result);
  }();
  CHECK(code % 77 == 0);
  CHECK(lives(victim.pid()));
  pid_lockfile lock(here.name, options, ec);
  CHECK(lives(victim.pid()));
}

TEST_CASE(
    "a holder that belongs to a service manager is not replaced, and the command that stops it is "
    "named") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  auto status = query_lock(here.name, here.options());
  REQUIRE(status.holder);
  const char* command = "";
  SUBCASE("of the system") {
    status.holder->started_from = "systemd unit shiva.service";
    command = "systemctl stop shiva.service";
  }
  SUBCASE("of a user") {
    status.holder->started_from = "systemd user unit shiva.service";
    command = "systemctl --user stop shiva.service";
  }
  here.rewrite(*status.holder);
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(ec == errc::managed_holder);
  CHECK(lock.explanation().find(command) != std::string::npos);
  CHECK(lives(holder.pid()));
}

TEST_CASE("stop_holder ends the holder and takes nothing; nobody's name is left alone") {
  place here;
  stop_options options;
  options.directory = here.directory.path();
  std::error_code ec;
  stop_result result = stop_holder(here.name, options, ec);
  CHECK(!ec);
  CHECK(!result.holder);
  CHECK(!result.ended);
  CHECK(std::filesystem::is_empty(here.directory.path()));
  bool deaf = false;
  SUBCASE("by SIGTERM") {}
  SUBCASE("by SIGKILL, after the grace that was given") { deaf = true; }
  auto holder = here.start({.before_exec = [=] { return !deaf || ::signal(SIGTERM, SIG_IGN) != SIG_ERR; }});
  REQUIRE(holder.read_until("taken"));
  if (deaf) options.grace = 20ms;
  result = stop_holder(here.name, options, ec);
  CHECK(!ec);
  REQUIRE(result.holder);
  CHECK(result.holder->process.pid == holder.pid());
  CHECK(result.ended);
  CHECK(result.killed == deaf);
  const auto ended = holder.wait();
  REQUIRE(ended);
  CHECK(ended->signal() == (deaf ? SIGKILL : SIGTERM));
  const lock_state after = query_lock(here.name, options_without_replace(here)).state;
  CHECK(after != lock_state::held);
}

TEST_CASE("stop_holder refuses this process, and a managed one unless it is told otherwise") {
  place here;
  stop_options options;
  options.directory = here.directory.path();
  std::error_code ec;
  SUBCASE("this process") {
    lock_options plain = options_without_replace(here);
    pid_lockfile lock(here.name, plain);
    options.managed = true;
    CHECK(!stop_holder(here.name, options, ec).ended);
    CHECK(ec == errc::already_running);
    lock.verify();
  }
  SUBCASE("a managed one") {
    auto holder = here.start();
    REQUIRE(holder.read_until("taken"));
    auto status = query_lock(here.name, options_without_replace(here));
    REQUIRE(status.holder);
    status.holder->started_from = "systemd unit shiva.service";
    here.rewrite(*status.holder);
    const stop_result refused = stop_holder(here.name, options, ec);
    CHECK(ec == errc::managed_holder);
    CHECK(refused.explanation.find("systemctl stop shiva.service") != std::string::npos);
    CHECK(!holder.ended());
    options.managed = true;
    CHECK(stop_holder(here.name, options, ec).ended);
    CHECK(holder.wait().has_value());
  }
}
