// instance-guard run: the command's exit status, streams and tree.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/tool.hpp"

using namespace support;
using namespace std::string_literals;

TEST_CASE("the exit status is the command's own") {
  const scene s;
  for (const int code : {0, 1, 7, 75, 124, 125, 126, 127, 255}) {
    auto tool = s.start(run_words({}, s.words({"exit=" + std::to_string(code)})));
    CHECK(tool.wait().value_or(no_status).code() == code);
  }
}

TEST_CASE("128 and the signal that ended the command") {
  const scene s;
  for (const int number : {SIGHUP, SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1, 40}) {
    auto tool = s.start(run_words({}, s.words({"signal=" + std::to_string(number)})));
    CHECK(tool.wait().value_or(no_status).code() == 128 + number);
  }
}

TEST_CASE("what can't be run is told as the shell tells it") {
  const scene s;
  const auto code_of = [&](std::vector<std::string> command) {
    auto tool = s.start(run_words({}, std::move(command)), {.merge_err = true});
    const std::string said = tool.read_all();
    CHECK(lines_of(said).size() == 1);
    return tool.wait().value_or(no_status).code();
  };
  CHECK(code_of({"instance-guard-no-such-command"}) == 127);
  CHECK(code_of({"/no/such/file"}) == 127);
  CHECK(code_of({"/"}) == 126);
  CHECK(code_of({"/dev/null"}) == 126);
  // The system does not run these: a script without its first line, and what is none.
  const auto file = [&](const char* name, const std::string& text) {
    std::ofstream(s / name) << text;
    std::filesystem::permissions(s / name, std::filesystem::perms::owner_all);
    return s / name;
  };
  CHECK(s.start(run_words({}, {file("script", "exit 9\n")})).wait().value_or(no_status).code() == 9);
  CHECK(code_of({file("bytes", std::string("a\0\nexit 9\n", 10))}) == 126);
}

TEST_CASE("wrong arguments are one line and exit 125, and nothing is started") {
  const scene s;
  const std::string witness = s / "witness";
  const std::vector<std::string> command = s.words({"witness=" + witness});
  const auto refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), INSTANCE_GUARD_TOOL);
    auto tool = s.start(arguments, {.merge_err = true});
    const std::string said = tool.read_all();
    CAPTURE(said);
    CHECK(lines_of(said).size() == 1);
    CHECK(said.starts_with("instance-guard"));
    CHECK(tool.wait().value_or(no_status).code() == 125);
    CHECK(::access(witness.c_str(), F_OK) != 0);
  };
  const auto with = [&](std::vector<std::string> options) {
    options.insert(options.begin(), "run");
    options.push_back("--");
    options.insert(options.end(), command.begin(), command.end());
    return options;
  };
  refused({"run"});
  refused({"run", "--"});
  refused({"run", "--", ""});
  refused({"run", s.helper(), "sleep"});
  refused({"run", "--timeout", "5s"});
  refused({});
  refused({"no-such-subcommand"});
  for (const char* duration : {"", "5", "5 s", "5x", "s", "1.5s", "-1s", "5s1h", "1h1h", "99999999999999999999s", "5S"})
    refused(with({"--timeout", duration}));
  refused(with({"--no-such-option"}));
  refused(with({"--wait"}));
  refused(with({"--scope", "galaxy"}));
  refused(with({"--stop-signal", "SIGNONSENSE"}));
  refused(with({"--conflict-exit-code", "256"}));
  refused(with({"--name", "not/a/name"}));
}

TEST_CASE("arguments reach the command as they are, also those that look like options of the tool") {
  const scene s;
  auto tool = s.start(run_words({}, {"printf", "<%s>", "--name", "x", "--", "--help", "", "a b", "-v"}));
  CHECK(tool.read_all() == "<--name><x><--><--help><><a b><-v>");
  CHECK(tool.wait().value_or(no_status).code() == 0);
}

TEST_CASE("stdin, pipes and stderr reach the command untouched") {
  const scene s;
  auto tool = s.start(run_words({}, s.words({"echo"})));
  const std::string text = "one\n\0two\n\xff"s + std::string(200'000, 'x');
  std::thread writer([&] {
    tool.write(text);
    tool.in().reset();
  });
  CHECK(tool.read_all() == text);
  writer.join();
  CHECK(tool.wait().value_or(no_status).code() == 0);
  auto apart = s.start(run_words({}, {"sh", "-c", "echo out; echo err >&2"}), {.merge_err = true});
  CHECK(apart.read_all() == "out\nerr\n");
}

TEST_CASE("a stream that is closed is nothing of the tool's for the command") {
  const scene s;
  const std::pair<const char*, std::vector<int>> cases[] = {{"0", {0}}, {"2", {2}}, {"0", {0, 2}}, {"2", {0, 2}}};
  for (const auto& each : cases) {
    CAPTURE(each.first);
    const auto close_them = [&each] {
      for (const int stream : each.second) ::close(stream);
      return true;
    };
    auto tool =
        s.start(run_words({}, {"readlink", std::string("/proc/self/fd/") + each.first}), {.before_exec = close_them});
    CHECK(tool.read_all() == "/dev/null\n");
    CHECK(tool.wait().value_or(no_status).code() == 0);
  }
}

TEST_CASE("what the command leaves behind ends with it") {
  const scene s;
  for (const char* tree :
       {"sleep", "setsid ignore sleep", "daemon ignore sleep", "ignore stopped", "fan=5 setsid sleep"}) {
    CAPTURE(tree);
    const std::vector<std::string> command = {"sh", "-c", s.helper() + " " + tree + " & read go"};
    auto tool = s.start(run_words({"--grace", "50ms"}, command));
    REQUIRE(tool.read_until("ready"));
    tool.write("\n");
    CHECK(tool.wait().value_or(no_status).code() == 0);
    CHECK(s.empty());
  }
}

TEST_CASE("kill -9 of the tool ends the whole tree") {
  const canary stranger;
  const scene s;
  for (const char* tree :
       {"sleep", "fork setsid ignore sleep", "fork daemon ignore sleep", "stopped", "fan=5 setsid ignore sleep"}) {
    CAPTURE(tree);
    auto tool = s.start(run_words({"--grace", "50ms"}, s.words(split(tree))));
    REQUIRE(tool.read_until("ready"));
    tool.signal(SIGKILL);
    CHECK(tool.wait().value_or(no_status).signal() == SIGKILL);
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(_LIBCPP_VERSION)
TEST_CASE("run loads the C library and its loader, and nothing else") {
  const scene s;
  // The parent of the command is the warden: a copy of the tool.
  auto tool = s.start(run_words({}, {"sh", "-c", "sed -n 's/.* \\(\\/.*\\.so.*\\)/\\1/p' /proc/$PPID/maps | sort -u"}));
  const std::vector<std::string> loaded = lines_of(tool.read_all());
  CHECK(tool.wait()->success());
  CHECK(!loaded.empty());
  for (const std::string& each : loaded) {
    CAPTURE(each);
    CHECK((each.find("/libc.so") != std::string::npos || each.find("/ld-") != std::string::npos));
  }
}
#endif
