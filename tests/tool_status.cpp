// instance-guard status: who has a name, since when, from where, with which children.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <instance_guard/pid_lockfile.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/owner.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;
using json = nlohmann::json;

namespace {

/// A holder of locks that does as it is told.
program hold(const scene& s, const std::string& name, std::vector<std::string> more = {}, start_options options = {}) {
  std::vector<std::string> words = {INSTANCE_GUARD_LOCK_HELPER, name};
  words.insert(words.end(), more.begin(), more.end());
  program holder = s.start(words, std::move(options));
  REQUIRE(holder.read_until("taken"));
  return holder;
}

json status_of(const scene& s, const std::string& name) {
  const tool_result got = run_tool(s, {"status", "--json", name});
  CAPTURE(got.out);
  json value = json::parse(got.out, nullptr, false);
  CHECK(!value.is_discarded());
  return value;
}

}  // namespace

TEST_CASE("a name is free, held, abandoned: exit codes 3, 0, 1") {
  const scene s;
  const std::string name = unique_name("tool-status");
  tool_result got = run_tool(s, {"status", name});
  CHECK(got.code == 3);
  CHECK(got.says("free"));
  program holder = hold(s, name, {"version=1.4.2"});
  got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.out.starts_with(name + "  held, "));
  CHECK(got.says("pid " + std::to_string(holder.pid()) + ", version 1.4.2, started 2"));
  CHECK(got.says("started   "));
  CHECK(got.says(std::string("command   ") + INSTANCE_GUARD_LOCK_HELPER));
  CHECK(got.says(std::filesystem::current_path().string() + ")"));  // long lines are folded
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.code == 1);
  CHECK(got.says("abandoned"));
  CHECK(got.says("pid " + std::to_string(holder.pid()) + ", which did not end cleanly"));
}

TEST_CASE("of several names the exit code is the worst, and each is told") {
  const scene s;
  const std::string held = unique_name("tool-held"), free = unique_name("tool-free");
  program holder = hold(s, held);
  CHECK(run_tool(s, {"status", held, held}).code == 0);
  CHECK(run_tool(s, {"status", free, held}).code == 3);
  const tool_result got = run_tool(s, {"status", held, free});
  CHECK(got.code == 3);
  CHECK(got.says(held));
  CHECK(got.says(free));
  const tool_result machine = run_tool(s, {"status", "--json", held, free});
  const json value = json::parse(machine.out, nullptr, false);
  REQUIRE(value.is_object());
  CHECK(value["schema"] == 1);
  REQUIRE(value["names"].size() == 2);
  CHECK(value["names"][0]["state"] == "held");
  CHECK(value["names"][1]["state"] == "free");
}

TEST_CASE("a name that can't be looked up is unknown: exit code 4") {
  const scene s;
  const std::string link = s / "link";
  std::filesystem::create_symlink("/", link);
  const tool_result got = run_tool(s, {"status", "--directory", link, unique_name("tool-unknown")});
  CAPTURE(got.out);
  CHECK(got.code == 4);
  CHECK(got.says("unknown: "));
}

TEST_CASE("what makes a start fail is no free name: unknown, with the path and the cure") {
  const scene s;
  const std::string name = unique_name("tool-odd");
  const std::string directory = s / "locks";
  std::filesystem::create_directory(directory);
  std::filesystem::permissions(directory, std::filesystem::perms::owner_all);
  const std::string file = directory + "/" + name + ".lock";
  const auto asked = [&](std::vector<std::string> words) {
    words.insert(words.end(), {"--directory", directory, "--scope", "user"});
    return run_tool(s, std::move(words), {.merge_err = true});
  };
  struct odd_file {
    const char* kind;
    std::function<bool()> make;
  };
  const odd_file odd[] = {{"a directory", [&] { return ::mkdir(file.c_str(), 0700) == 0; }},
                          {"a FIFO", [&] { return ::mkfifo(file.c_str(), 0600) == 0; }},
                          {"a symbolic link", [&] { return ::symlink("/dev/null", file.c_str()) == 0; }},
                          {"a device", [&] { return ::mknod(file.c_str(), S_IFCHR | 0600, ::makedev(1, 3)) == 0; }}};
  for (const odd_file& each : odd) {
    CAPTURE(each.kind);
    if (!each.make()) {
      MESSAGE("skipped: only root makes a device");
      continue;
    }
    const std::string fact = file + " is " + each.kind + ", not a lock file";
    const std::string cure = "see who made it, then remove it";
    const tool_result got = asked({"status", name});
    CHECK(got.code == 4);
    CHECK(got.out == name + "  unknown: " + fact + "\n  cure      " + cure + "\n");
    const tool_result machine = asked({"status", "--json", name});
    json value = json::parse(machine.out, nullptr, false);  // not const: a member may be missing
    REQUIRE(value.is_object());
    CHECK(machine.code == 4);
    CHECK(value["state"] == "unknown");
    CHECK(value["fault"] == fact);
    CHECK(value["cure"] == cure);
    const tool_result stopped = asked({"stop", name});
    CHECK(stopped.code == 4);
    CHECK(stopped.out == name + ": can't tell who has it: " + fact + "; cure: " + cure + "\n");
    const tool_result listed = asked({"list", "--json"});
    const json unknown = {{"name", name}, {"state", "unknown"}, {"fault", fact}, {"cure", cure}};
    json all = json::parse(listed.out, nullptr, false);  // and what is held elsewhere: by their sockets
    CHECK(std::count(all["names"].begin(), all["names"].end(), unknown) == 1);
    CHECK(asked({"list"}).says("unknown"));
    std::filesystem::remove(file);
  }
  CHECK(asked({"status", name}).code == 3);
}

TEST_CASE("children are told with pid and command line") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tool-children");
  owner o(s, {.arguments = {"guard=" + name, "child=setsid sleep", "child=sleep", "pause"}, .ready = 2});
  REQUIRE(o.complete());
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.says("children  3: "));  // the one that made a session stays as its parent
  for (const pid_t pid : o.ready()) CHECK(got.says(std::to_string(pid) + " "));
  const json value = status_of(s, name);
  CHECK(value["children"].size() == 3);
  for (const json& each : value["children"])
    CHECK(each["command"].get<std::string>().find("instance_guard_test_helper") != std::string::npos);
  o.process().signal(SIGTERM);
  CHECK(o.process().wait());
}

TEST_CASE("a name whose holder was killed is cleaning up while a child lives: exit code 0") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("tool-cleaning");
  owner o(s, {.arguments = {"grace=60000", "guard=" + name, "child=ignore sleep", "pause"}, .ready = 1});
  REQUIRE(o.complete());
  o.process().signal(SIGKILL);
  REQUIRE(o.process().wait());
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("cleaning up, for "));
  CHECK(got.says("pid " + std::to_string(o.process().pid()) + ", which has ended; pid "));
  CHECK(got.says(std::to_string(o.ready().at(0))));
  const json value = status_of(s, name);
  CHECK(value["state"] == "cleaning_up");
  CHECK(value["ended_at"].is_string());
  s.end();
}

TEST_CASE("replaced code is told") {
  const scene s({INSTANCE_GUARD_LOCK_HELPER});
  const std::string name = unique_name("tool-replaced");
  const std::string executable = s.path_of(INSTANCE_GUARD_LOCK_HELPER);
  program holder = s.start({executable, name});
  REQUIRE(holder.read_until("taken"));
  CHECK(!run_tool(s, {"status", name}).says("REPLACED"));
  CHECK(status_of(s, name)["replaced_code"] == false);
  std::filesystem::copy_file(executable, executable + ".new");
  std::filesystem::rename(executable + ".new", executable);
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.says("code      REPLACED "));
  CHECK(status_of(s, name)["replaced_code"] == true);
}

TEST_CASE("refused starts are counted, and the last one is told") {
  const scene s;
  const std::string name = unique_name("tool-refused");
  program holder = hold(s, name);
  pid_t last = 0;
  for (int i = 0; i < 3; ++i) {
    program other = s.start({INSTANCE_GUARD_LOCK_HELPER, name});
    REQUIRE(other.read_until("refused"));
    REQUIRE(other.wait());
    last = other.pid();
  }
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.says("refused   3 starts, the last "));
  CHECK(got.says("pid " + std::to_string(last)));
  const json value = status_of(s, name);
  REQUIRE(value["refusals"].size() == 3);
  CHECK(value["refusals"][2]["pid"] == last);
}

TEST_CASE("the other names of the same process are told") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string bot = unique_name("tool-bot"), wallet = unique_name("tool-wallet");
  program holder = s.start(run_words({"--name", bot, "--name", wallet}, s.words({"sleep"})));
  REQUIRE(holder.read_until("ready"));
  const tool_result got = run_tool(s, {"status", bot});
  CAPTURE(got.out);
  CHECK(got.says("also      " + wallet));
  CHECK(status_of(s, wallet)["also_holds"] == json::array({bot}));
  holder.signal(SIGTERM);
  CHECK(holder.wait());
}

TEST_CASE("under run it is the command that is told, not the tool") {
  const scene s;
  const std::string name = unique_name("tool-wrapped");
  program holder = s.start(run_words({"--name", name, "--tag", "9f31c02"}, s.words({"sleep"})));
  REQUIRE(holder.read_until("ready"));
  const json value = status_of(s, name);
  CAPTURE(value.dump());
  CHECK(value["holder"]["pid"] == holder.pid());
  CHECK(value["holder"]["arguments"] == json::array({s.helper(), "sleep"}));
  CHECK(value["holder"]["version"] == "9f31c02");
  CHECK(value["replaced_code"] == false);
  // ... and it is the command's program whose replacement counts.
  std::filesystem::copy_file(s.helper(), s.helper() + ".new");
  std::filesystem::rename(s.helper() + ".new", s.helper());
  CHECK(status_of(s, name)["replaced_code"] == true);
  holder.signal(SIGTERM);
  CHECK(holder.wait());
}

TEST_CASE("the same name under another user is told") {
  if (!is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  const scene s({INSTANCE_GUARD_LOCK_HELPER});
  const std::string name = unique_name("tool-others");
  program theirs =
      s.start({s.path_of(INSTANCE_GUARD_LOCK_HELPER), name}, {.before_exec = [] { return become(nobody); }});
  REQUIRE(theirs.read_until("taken"));
  tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.code == 3);
  CHECK(got.says("others    also held by user nobody"));
  CHECK(got.says("scope user (root)"));
  const json value = status_of(s, name);
  REQUIRE(value["other_users"].size() == 1);
  CHECK(value["other_users"][0]["uid"] == nobody);
}

TEST_CASE("a name of scope host is found without being asked for there") {
  if (!is_root()) {
    MESSAGE("skipped: the directory of the host is root's");
    return;
  }
  const scene s;
  const std::string name = unique_name("tool-host"), directory = s / "host";
  std::filesystem::create_directory(directory);
  program holder = hold(s, name, {"host", "directory=" + directory});
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(got.says("scope host"));
  CHECK(run_tool(s, {"status", name, "--scope", "user"}).code == 3);
}

TEST_CASE("whatever a holder calls itself, the terminal only draws, and the JSON is valid") {
  const scene s({INSTANCE_GUARD_LOCK_HELPER});
  const std::string name = unique_name("tool-hostile");
  const std::string evil =
      "version=\x1b]0;owned\a\x1b[2J\xff\xc3\x9b"
      "31m\n\"\\";
  const std::string odd = s / "a\x1b[31m\xfe\n b";
  std::filesystem::create_symlink(s.path_of(INSTANCE_GUARD_LOCK_HELPER), odd);
  program holder = s.start({odd, name, evil});
  REQUIRE(holder.read_until("taken"));
  const tool_result got = run_tool(s, {"status", name});
  CHECK(got.code == 0);
  for (const char c : got.out) CHECK((static_cast<unsigned char>(c) >= 0x20 || c == '\n'));
  CHECK(got.out.find('\x7f') == std::string::npos);
  CHECK(got.out.find("\xc3\x9b"
                     "31m") != std::string::npos);  // a letter is a letter
  CHECK(fits(got.out));
  const json value = status_of(s, name);
  CHECK(value["holder"]["pid"] == holder.pid());
  CHECK(!json::parse(run_tool(s, {"list", "--json"}).out, nullptr, false).is_discarded());
}

TEST_CASE("no line is longer than 80 columns, and nothing is lost") {
  const scene s({INSTANCE_GUARD_LOCK_HELPER});
  const std::string name = unique_name("tool-long");
  std::vector<std::string> words = {s.path_of(INSTANCE_GUARD_LOCK_HELPER), name, "version=" + std::string(120, 'v')};
  for (int i = 0; i < 20; ++i) words.push_back("--option-" + std::to_string(i));
  words.push_back(std::string(300, 'x'));
  program holder = s.start(words);
  REQUIRE(holder.read_until("taken"));
  const tool_result got = run_tool(s, {"status", name});
  CAPTURE(got.out);
  CHECK(fits(got.out));
  for (int i = 0; i < 20; ++i) CHECK(got.says("--option-" + std::to_string(i)));
}
