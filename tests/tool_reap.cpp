// instance-guard reap --session: what carries the mark ends, and nobody else.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/sanitizer.hpp"
#include "support/scene.hpp"
#include "support/service_cgroup.hpp"
#include "support/tool_result.hpp"

using namespace support;

namespace {

std::string session_id(const std::string& what) {
  static int count = 0;
  return what + "-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

std::vector<std::string> marked(const std::string& id) { return {"INSTANCE_GUARD_SESSION=" + id}; }

/// A process that is in nobody's way, with an environment of its own.
program start(const scene& s, std::vector<std::string> words, std::vector<std::string> environment,
              start_options options = {}) {
  options.environment = std::move(environment);
  program result = s.start(s.words(std::move(words)), std::move(options));
  REQUIRE(result.read_until("ready"));
  return result;
}

tool_result reap(const scene& s, const std::string& id, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {"reap", "--session", id, "--grace", "300ms"};
  words.insert(words.end(), more.begin(), more.end());
  return run_tool(s, words, {.merge_err = true});
}

bool told(const tool_result& got, pid_t pid) { return got.says("  " + std::to_string(pid) + " "); }

}  // namespace

TEST_CASE("a session that has left nothing is 0") {
  const scene s;
  const std::string id = session_id("nothing");
  const tool_result got = reap(s, id);
  CHECK(got.code == 0);
  CHECK(got.says("session " + id + ": ended 0 processes"));
}

TEST_CASE("where processes can't be listed it does not say that none is left") {
  if (support::needs_proc) {
    MESSAGE("skipped: AddressSanitizer needs /proc");
    return;
  }
  const scene s;
  const int code = in_own_pid_namespace([&] {
    if (::mount("none", "/proc", "tmpfs", 0, nullptr) != 0) return no_namespace;
    for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--dry-run"}}) {
      const tool_result got = reap(s, session_id("unseen"), more);
      if (got.code != 125 || !got.says("processes can't be listed") || got.says("ended")) return 1;
    }
    return 0;
  });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace, or nothing can be mounted in it");
  else CHECK(code == 0);
}

TEST_CASE("what a killed session left is ended: detached, stubborn, stopped, without a leader") {
  const scene s;
  const std::string id = session_id("left");
  canary stranger;
  std::vector<program> left;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"sleep"},
                                                                                     {"daemon", "sleep"},
                                                                                     {"setsid", "ignore", "sleep"},
                                                                                     {"daemon", "stopped"},
                                                                                     {"block", "sleep"},
                                                                                     {"headless", "sleep"},
                                                                                     {"subreaper", "daemon", "sleep"}})
    left.push_back(start(s, words, marked(id)));
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(s.empty());
  CHECK(got.says("ended "));
}

TEST_CASE("children that appear meanwhile are ended too") {
  const scene s;
  const std::string id = session_id("more");
  SUBCASE("on each SIGTERM two more") {
    program hydra = start(s, {"cap=20", "hydra=40"}, marked(id));
    CHECK(reap(s, id).code == 0);
    CHECK(s.empty());
  }
  SUBCASE("processes that fork and exit as fast as they can") {
    program runner = s.start(s.words({"cap=20", "runner=3"}), {.environment = marked(id)});
    REQUIRE(runner.read_until("ready"));
    const tool_result got = reap(s, id);
    CHECK(got.code == 0);
    CHECK(s.empty());
  }
}

TEST_CASE("a dry run says what would be ended and why, and ends nothing") {
  const scene s;
  const std::string id = session_id("dry");
  program one = start(s, {"sleep"}, marked(id));
  program two = start(s, {"ignore", "sleep"}, marked(id));
  program kept = start(s, {"sleep"}, {"INSTANCE_GUARD_SESSION=" + id, "INSTANCE_GUARD_KEEP=1"});
  const tool_result got = reap(s, id, {"--dry-run"});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("would end 2 processes"));
  CHECK(told(got, one.pid()));
  CHECK(told(got, two.pid()));
  CHECK(got.says("why"));
  CHECK(got.says("INSTANCE_GUARD_SESSION=" + id));
  CHECK(got.says("would keep 1 process"));
  CHECK(told(got, kept.pid()));
  CHECK(fits(got.out));
  CHECK(!one.ended());
  CHECK(!two.ended());
  // What was said is what happens.
  CHECK(reap(s, id).says("ended 2 processes"));
  CHECK(!kept.ended());
}

TEST_CASE("decoy: another session, and ids that only begin or end alike") {
  const scene s;
  const std::string id = session_id("decoy");
  std::vector<program> decoys;
  for (const std::string& other :
       {id + "0", id.substr(0, id.size() - 1), "x" + id, std::string("other"), id + " ", std::string()})
    decoys.push_back(start(s, {"sleep"}, marked(other)));
  decoys.push_back(start(s, {"sleep"}, {"XINSTANCE_GUARD_SESSION=" + id}));
  decoys.push_back(start(s, {"sleep"}, {"OTHER=INSTANCE_GUARD_SESSION=" + id}));
  program target = start(s, {"sleep"}, marked(id));
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(target.ended());
  for (program& each : decoys) CHECK(!each.ended());
}

TEST_CASE("decoy: the mark in the arguments, or in a file's name, is none") {
  const scene s;
  const std::string id = session_id("arguments");
  program decoy = start(s, {"renamed=INSTANCE_GUARD_SESSION=" + id, "sleep"}, {});
  CHECK(reap(s, id).code == 0);
  CHECK(!decoy.ended());
}

TEST_CASE("decoy: a process that rewrote its environment, or started anew without it") {
  const scene s;
  const std::string id = session_id("rewrote");
  program scrubbed = start(s, {"scrubbed", "sleep"}, marked(id));
  program cleared = start(s, {"cleared", "sleep"}, marked(id));
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("ended 0 processes"));
  CHECK(!scrubbed.ended());
  CHECK(!cleared.ended());
}

TEST_CASE("decoy: the caller's own ancestors, with the mark") {
  const scene s;
  const std::string id = session_id("ancestors");
  const std::string tool = std::string(INSTANCE_GUARD_TOOL) + " reap --grace 300ms --session " + id;
  program victim = start(s, {"sleep"}, marked(id));
  program shell = s.start({"sh", "-c", "sh -c '" + tool + "; exit $?'; echo code=$?; read line"},
                          {.environment = marked(id), .merge_err = true});
  std::string said;
  while (const auto line = shell.read_line()) {
    said += *line + "\n";
    if (line->starts_with("code=")) break;
  }
  CAPTURE(said);
  CHECK(said.find("code=0") != std::string::npos);
  CHECK(said.find("this command is below it") != std::string::npos);
  CHECK(victim.wait());
  CHECK(!shell.ended());
  shell.write("\n");
  CHECK(shell.wait().value_or(no_status).code() == 0);
}

TEST_CASE("decoy: INSTANCE_GUARD_KEEP=1, and two different marks in one environment") {
  const scene s;
  const std::string id = session_id("keep");
  program kept = start(s, {"sleep"}, {"INSTANCE_GUARD_SESSION=" + id, "INSTANCE_GUARD_KEEP=1"});
  // putenv() replaces; only execve() itself can hand over the same name twice.
  const std::string one = "INSTANCE_GUARD_SESSION=" + id;
  program twice =
      s.start(s.words({"sleep"}), {.before_exec = [&] {
                const std::string helper = s.helper(), mark = s.mark();
                const char* words[] = {helper.c_str(), "sleep", nullptr};
                const char* environment[] = {one.c_str(), "INSTANCE_GUARD_SESSION=other", mark.c_str(), nullptr};
                ::execve(helper.c_str(), const_cast<char**>(words), const_cast<char**>(environment));
                return false;
              }});
  REQUIRE(twice.read_until("ready"));
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(!kept.ended());
  CHECK(!twice.ended());
  CHECK(got.says("another session's mark"));
}

TEST_CASE("decoy: a service, though it was started in the session's environment") {
  const scene s;
  const std::string id = session_id("service");
  service_cgroup unit("ig-test-" + id);
  program service = start(s, {"sleep"}, marked(id));
  program target = start(s, {"sleep"}, marked(id));
  if (!unit.possible() || !unit.add(service.pid())) {
    MESSAGE("skipped: no control group can be made");
    return;
  }
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("a service: systemd unit " + unit.name()));
  CHECK(!service.ended());
  CHECK(target.ended());
  service.signal(SIGKILL);
  CHECK(service.wait());
}

TEST_CASE("decoy: another user's process") {
  if (!is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  const scene s({INSTANCE_GUARD_TOOL});
  const std::string id = session_id("users");
  program theirs = start(s, {"sleep"}, marked(id), {.before_exec = [] { return become(nobody); }});
  program roots = start(s, {"sleep"}, marked(id));
  SUBCASE("when root reaps") {
    const tool_result got = reap(s, id);
    CAPTURE(got.out);
    CHECK(got.code == 0);
    CHECK(got.says("not (only) this user's"));
    CHECK(!theirs.ended());
    CHECK(roots.ended());
  }
  SUBCASE("when a user reaps, root's") {
    program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "reap", "--session", id, "--grace", "300ms"},
                           {.before_exec = [] { return become(nobody); }});
    CHECK(tool.wait().value_or(no_status).code() == 0);
    CHECK(theirs.ended());
    CHECK(!roots.ended());
  }
}

TEST_CASE("decoy: a process with another saved user") {
  if (!is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  const scene s;
  const std::string id = session_id("saved");
  program mixed = start(s, {"sleep"}, marked(id), {.before_exec = [] { return ::setresuid(nobody, 0, 0) == 0; }});
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.says("not (only) this user's"));
  CHECK(!mixed.ended());
}

TEST_CASE("under run --session everything below carries the mark, also what escaped its warden") {
  const scene s;
  const std::string id = session_id("run");
  canary stranger;
  program session = s.start(run_words({"--session", id}, s.words({"fan=2", "setsid", "sleep"})));
  REQUIRE(session.read_until("ready"));
  REQUIRE(session.read_until("ready"));
  const tool_result dry = reap(s, id, {"--dry-run"});
  CAPTURE(dry.out);
  CHECK(dry.says("would end 5 processes"));
  CHECK(dry.says("fan=2"));
  // Both guardians killed at once: what they leave is what reap is for.
  const std::vector<pid_t> wardens = children_of(session.pid());
  REQUIRE(!wardens.empty());
  for (const pid_t each : wardens) ::kill(each, SIGKILL);
  session.signal(SIGKILL);
  REQUIRE(session.wait());
  const tool_result got = reap(s, id);
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(s.empty());
}
