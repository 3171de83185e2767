// Who manages a process, asked of real ones: terminals, tmux, guards, control groups, parents.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <instance_guard/ghost_census.hpp>
#include <instance_guard/pid_lockfile.hpp>
#include <string>
#include <vector>

#include "support/scene.hpp"
#include "support/service_cgroup.hpp"
#include "support/terminal.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;

namespace {

process_manager manager_of(pid_t pid) {
  const process_table table = process_table::read();
  const process_info* row = table.find(pid);
  REQUIRE(row != nullptr);
  return managed_by(table, *row);
}

/// The pid of "ready pid=N …".
pid_t pid_of(const std::string& line) {
  const std::size_t at = line.find("pid=");
  return at == std::string::npos ? 0 : static_cast<pid_t>(std::strtol(line.c_str() + at + 4, nullptr, 10));
}

}  // namespace

TEST_CASE("what was started in a terminal is the terminal's, by name") {
  support::scene s;
  support::terminal terminal({s.helper(), "sleep"}, {s.mark()});
  REQUIRE(terminal.see("ready"));
  const process_manager found = manager_of(terminal.leader());
  CHECK(found.kind == manager_kind::terminal);
  CHECK(found.terminal.substr(0, 9) == "/dev/pts/");
  CHECK(found.text().substr(0, 18) == "terminal /dev/pts/");
  CHECK(!found.is_service());
}

TEST_CASE("what runs in a pane is tmux's") {
  const support::scene s;
  const std::string socket = s / "tmux";
  const auto tmux = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"tmux", "-S", socket, "-f", "/dev/null"});
    support::program run(words, {.environment = {s.mark(), "TERM=xterm"}, .merge_err = true});
    run.read_all();
    const auto status = run.wait();
    return status && status->exited() ? status->code() : -1;
  };
  const std::string said = s / "said";
  if (tmux({"new-session", "-d", s.helper() + " sleep >" + said}) != 0) {
    MESSAGE("skipped: tmux does not run here");
    return;
  }
  pid_t pid = 0;
  CHECK(support::wait_until([&] { return (pid = pid_of(support::detail::contents(said))) > 0; }));
  if (pid > 0) {
    const process_manager found = manager_of(pid);
    CHECK(found.kind == manager_kind::tmux);
    CHECK(found.name == "tmux");
    CHECK(found.terminal.substr(0, 9) == "/dev/pts/");
    // The server itself, which has left its parent, is nobody's ghost.
    census_options options;
    options.min_age = std::chrono::seconds(0);
    for (const ghost& each : take_census(process_table::read(), nullptr, options).ghosts)
      for (const census_entry& one : each.processes) {
        CHECK(one.process.id.pid != pid);
        CHECK(one.process.id.pid != found.process);
      }
  }
  CHECK(tmux({"kill-server"}) == 0);
}

TEST_CASE("whoever holds a guard is the guard's, and so is what it has started") {
  const support::scene s;
  const std::string name = support::unique_name("census");
  const pid_lockfile lock(name);
  support::program child = s.start(s.words({"sleep"}));
  REQUIRE(child.read_until("ready"));
  const process_manager own = manager_of(::getpid());
  CHECK(own.kind == manager_kind::guard);
  CHECK(own.name == name);
  CHECK(own.holds == std::vector<std::string>{name});
  const process_manager below = manager_of(child.pid());
  CHECK(below.kind == manager_kind::guard);
  CHECK(below.holds.empty());
  CHECK(below.is_service());
}

TEST_CASE("what is in a unit's control group is the unit's") {
  const support::scene s;
  const support::service_cgroup group("census-" + std::to_string(::getpid()));
  if (!group.possible()) {
    MESSAGE("skipped: control groups can't be made here");
    return;
  }
  support::program child = s.start(s.words({"sleep"}));
  REQUIRE(child.read_until("ready"));
  REQUIRE(group.add(child.pid()));
  const process_manager found = manager_of(child.pid());
  CHECK(found.kind == manager_kind::unit);
  CHECK(found.name == group.name());
  CHECK(found.text() == "systemd unit " + group.name());
  child.signal(SIGKILL);
  child.wait();
}

TEST_CASE("a child of another program is that program's") {
  const support::scene s;
  support::program parent = s.start(s.words({"fork", "sleep"}));
  const auto line = parent.read_until("ready");
  REQUIRE(line);
  const process_manager found = manager_of(pid_of(*line));
  // Where the test itself is somebody's (a terminal's, a guard's), so is what it starts.
  if (found.kind == manager_kind::program) CHECK(found.process == parent.pid());
  CHECK(found.kind != manager_kind::nobody);
  s.end();
}

TEST_CASE("a table that was read for a census is judged as it was, without reading again") {
  const support::scene s;
  support::program child = s.start(s.words({"sleep"}));
  REQUIRE(child.read_until("ready"));
  const process_table lean = process_table::read();
  const process_table full = process_table::read(census_read_options());
  CHECK(full.stores(census_read_options()));
  CHECK(!lean.stores(census_read_options()));
  census_options everybody;
  everybody.all_users = true;
  CHECK(!full.stores(census_read_options(everybody)));
  CHECK(process_table::read(census_read_options(everybody)).stores(census_read_options()));
  census_options options;
  options.services = {{"helper", s.helper(), 1}};
  CHECK(take_census(lean, nullptr, options).services.at(0).found == 1);
  child.signal(SIGKILL);
  child.wait();
  CHECK(take_census(full, nullptr, options).services.at(0).found == 1);
  CHECK(take_census(lean, nullptr, options).services.at(0).found == 0);
}

TEST_CASE("a process that is not in the table has nobody") {
  process_info stranger;
  stranger.id.pid = ::getpid();
  std::error_code ec;
  CHECK(managed_by(process_table(), stranger, ec).kind == manager_kind::nobody);
  CHECK(!ec);
}
