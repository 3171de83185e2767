// instance-guard stop: its holder leaves, and nobody else.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <instance_guard/pid_lockfile.hpp>
#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/owner.hpp"
#include "support/service_cgroup.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;
using instance_guard::lock_state;
using instance_guard::query_lock;

namespace {

program hold(const scene& s, const std::string& name, start_options options = {}) {
  program holder = s.start({INSTANCE_GUARD_LOCK_HELPER, name}, std::move(options));
  REQUIRE(holder.read_until("taken"));
  return holder;
}

/// Makes the record say something else; the lock stays the holder's.
template <class Change>
void rewrite(const std::string& name, Change change) {
  instance_guard::lock_status status = query_lock(name);
  REQUIRE(status.holder);
  change(*status.holder);
  instance_guard::detail::record_text text;
  instance_guard::detail::format_record(*status.holder, text);
  std::ofstream(status.path, std::ios::binary) << text.view();
}

}  // namespace

TEST_CASE("a free name is 0, and nothing is made") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  const tool_result got = run_tool(s, {"stop", name});
  CHECK(got.code == 0);
  CHECK(got.out == name + ": nobody has it\n");
  CHECK(!std::filesystem::exists(query_lock(name).path));
}

TEST_CASE("holder and children are ended, and told; then the name is free") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tool-stop");
  canary stranger;
  owner o(s, {.arguments = {"guard=" + name, "child=daemon sleep", "child=ignore sleep", "grace=200", "pause"},
              .ready = 2});
  REQUIRE(o.complete());
  const tool_result got = run_tool(s, {"stop", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("stopped pid " + std::to_string(o.process().pid()) + " ("));
  CHECK(got.says("2 children: "));
  for (const pid_t pid : o.ready()) {
    CHECK(got.says(std::to_string(pid) + " "));
    CHECK(!alive(pid));
  }
  CHECK(query_lock(name).state == lock_state::free);
  CHECK(o.process().wait().value_or(no_status).signal() == SIGTERM);
}

TEST_CASE("under run the command is ended with it") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  program holder = s.start(run_words({"--name", name}, s.words({"setsid", "sleep"})));
  REQUIRE(holder.read_until("ready"));
  const tool_result got = run_tool(s, {"stop", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("instance_guard_test_helper"));
  CHECK(query_lock(name).state == lock_state::free);
  CHECK(holder.wait());
}

TEST_CASE("a holder that ignores SIGTERM is killed after its grace, or the one that was given") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  program holder = hold(s, name, {.before_exec = [] { return ::signal(SIGTERM, SIG_IGN) != SIG_ERR; }});
  const tool_result got = run_tool(s, {"stop", name, "--grace", "50ms"});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("killed pid " + std::to_string(holder.pid())));
  CHECK(holder.wait().value_or(no_status).signal() == SIGKILL);
  const lock_state after = query_lock(name).state;
  CHECK(after == lock_state::abandoned);  // the file says who did not end cleanly
  CHECK(run_tool(s, {"stop", name}).code == 0);
}

TEST_CASE("it waits for the children of a holder that is dead already") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tool-stop");
  owner o(s, {.arguments = {"grace=400", "guard=" + name, "child=ignore sleep", "pause"}, .ready = 1});
  REQUIRE(o.complete());
  o.process().signal(SIGKILL);
  REQUIRE(o.process().wait());
  const tool_result got = run_tool(s, {"stop", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  const lock_state after = query_lock(name).state;
  CHECK(after == lock_state::abandoned);
  CHECK(!alive(o.ready().at(0)));
}

TEST_CASE("a stopped warden is told to go on") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tool-stop");
  owner o(s, {.arguments = {"grace=100", "guard=" + name, "child=sleep", "pause"}, .ready = 1});
  REQUIRE(o.complete());
  const pid_t warden = query_lock(name).holder->warden.pid;
  REQUIRE(warden > 0);
  ::kill(warden, SIGSTOP);
  o.process().signal(SIGKILL);
  REQUIRE(o.process().wait());
  CHECK(run_tool(s, {"stop", name}).code == 0);
  CHECK(query_lock(name).state == lock_state::abandoned);
}

TEST_CASE("one that a service manager would start again is refused, and the command is told") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  program holder = hold(s, name);
  std::string command = "systemctl stop shiva.service";
  SUBCASE("of the system") {
    rewrite(name, [](auto& record) { record.started_from = "systemd unit shiva.service"; });
  }
  SUBCASE("of a user") {
    rewrite(name, [](auto& record) { record.started_from = "systemd user unit shiva.service"; });
    command = "systemctl --user stop shiva.service";
  }
  const tool_result got = run_tool(s, {"stop", name}, {.merge_err = true});
  CAPTURE(got.out);
  CHECK(got.code == 75);
  CHECK(lines_of(got.out).size() == 1);
  CHECK(got.says(command));
  CHECK(!holder.ended());
  CHECK(query_lock(name).state == lock_state::held);
  CHECK(run_tool(s, {"stop", "--force", name}).code == 0);
  CHECK(holder.wait().value_or(no_status).signal() == SIGTERM);
}

TEST_CASE("... also when only the kernel says that it is a service") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  service_cgroup unit("ig-" + name);
  program holder = hold(s, name);
  if (!unit.possible() || !unit.add(holder.pid())) {
    MESSAGE("skipped: no control group can be made");
    return;
  }
  const tool_result got = run_tool(s, {"stop", name}, {.merge_err = true});
  CAPTURE(got.out);
  CHECK(got.code == 75);
  CHECK(got.says("systemctl stop " + unit.name()));
  CHECK(!holder.ended());
  CHECK(run_tool(s, {"stop", name, "--force"}).code == 0);
  CHECK(holder.wait());
}

TEST_CASE("a CI runner is its unit's; a job of it is no service, though it is in that unit: it is stopped") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  service_cgroup unit("jenkins-agent@" + name);
  program holder = hold(s, name);
  if (!unit.possible() || !unit.add(holder.pid())) {
    MESSAGE("skipped: no control group can be made");
    return;
  }
  // Nobody above it is in the unit: it may be the runner itself.
  const tool_result refused = run_tool(s, {"stop", name}, {.merge_err = true});
  CAPTURE(refused.out);
  CHECK(refused.code == 75);
  CHECK(refused.says("systemctl stop " + unit.name()));
  CHECK(!holder.ended());
  REQUIRE(unit.enter());  // who has started it
  const tool_result got = run_tool(s, {"stop", name}, {.merge_err = true});
  CHECK(unit.leave());
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(!got.says("systemctl"));
  CHECK(holder.wait().value_or(no_status).signal() == SIGTERM);
}

TEST_CASE("not even --force ends what is not proven to be the holder") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  program holder = hold(s, name);
  canary bystander;
  std::error_code ec;
  SUBCASE("the record names another process") {
    const auto other = instance_guard::process_identity::of(bystander.pid(), ec);
    rewrite(name, [&](auto& record) { record.process = other; });
  }
  SUBCASE("... by its pid alone") {
    rewrite(name, [&](auto& record) { record.process.pid = bystander.pid(); });
  }
  SUBCASE("... as its warden") {
    const auto other = instance_guard::process_identity::of(bystander.pid(), ec);
    rewrite(name, [&](auto& record) { record.warden = other; });
  }
  if (!instance_guard::detail::holder_by_socket(instance_guard::lock_scope::user,
                                                instance_guard::detail::lock_name(name))) {
    MESSAGE("skipped: this kernel does not tell who listens");
    return;
  }
  const tool_result got = run_tool(s, {"stop", "--force", name, "--grace", "100ms"}, {.merge_err = true});
  CAPTURE(got.out);
  CHECK(bystander.alive());
  // Either refused, or the one who really had it is gone.
  if (got.code == 0) CHECK(holder.wait());
  else CHECK(got.code == 75);
}

TEST_CASE("its own ancestors are not ended") {
  const scene s;
  const std::string name = unique_name("tool-stop");
  program holder = s.start(run_words({"--name", name}, {"sh", "-c",
                                                        std::string(INSTANCE_GUARD_TOOL) + " stop --force " + name +
                                                            "; echo code=$?; exec " + s.helper() + " sleep"}),
                           {.merge_err = true});
  const auto line = holder.read_until("code=");
  CHECK(line == "code=75");
  CHECK(holder.read_until("ready"));
  CHECK(query_lock(name).state == lock_state::held);
  CHECK(run_tool(s, {"stop", name}).code == 0);
}

TEST_CASE("a holder of another user is left alone, and told") {
  if (!is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  const scene s({INSTANCE_GUARD_LOCK_HELPER});
  const std::string name = unique_name("tool-stop");
  program theirs =
      s.start({s.path_of(INSTANCE_GUARD_LOCK_HELPER), name}, {.before_exec = [] { return become(nobody); }});
  REQUIRE(theirs.read_until("taken"));
  const tool_result got = run_tool(s, {"stop", "--force", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("nobody has it"));  // nobody of this user
  CHECK(got.says("user nobody holds one as well"));
  CHECK(!theirs.ended());
}

TEST_CASE("a user can't stop root's holder, and is told so") {
  if (!is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  const scene s({INSTANCE_GUARD_LOCK_HELPER, INSTANCE_GUARD_TOOL});
  const std::string name = unique_name("tool-stop"), place = s / "host";
  std::filesystem::create_directory(place);
  program holder = s.start({s.path_of(INSTANCE_GUARD_LOCK_HELPER), name, "host", "directory=" + place});
  REQUIRE(holder.read_until("taken"));
  for (const bool hidden : {false, true}) {
    CAPTURE(hidden);
    const auto as_nobody = [hidden] {
      if (hidden && (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                     ::mount("proc", "/proc", "proc", 0, "hidepid=2") != 0))
        return false;
      return become(nobody);
    };
    program tool =
        s.start({s.path_of(INSTANCE_GUARD_TOOL), "stop", "--force", "--scope", "host", "--directory", place, name},
                {.before_exec = as_nobody, .merge_err = true});
    const std::string said = tool.read_all();
    const int code = tool.wait().value_or(no_status).code();
    if (code == 77) {
      MESSAGE("skipped in part: /proc can't be mounted");
      continue;
    }
    CAPTURE(said);
    CHECK(code == 1);
    CHECK(
        said.starts_with(name + ": already running: pid " + std::to_string(holder.pid()) + " could not be stopped: "));
    CHECK(lines_of(said).size() == 1);
  }
  CHECK(!holder.ended());
}
