// The recipes of docs/recipes.md, run from their files; and the patterns that they replace, each in the
// case in which it fails.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/other_user.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

const std::string recipes = INSTANCE_GUARD_RECIPES;

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The environment in which the recipes find the tool.
std::vector<std::string> with_tool() { return {std::string("INSTANCE_GUARD=") + INSTANCE_GUARD_TOOL}; }

bool has(const std::string& command) {
  const bool found = std::system(("command -v " + command + " >/dev/null 2>&1").c_str()) == 0;
  if (!found) MESSAGE("skipped: " << command << " is not installed");
  return found;
}

/// What the usual script does: it ends its process group when it leaves.
const char* const trap_script =
    "cleanup() { kill -- -$$ 2>/dev/null; wait; }; trap cleanup EXIT INT TERM; eval \"$1\"; echo started; wait";

/// Three children: plain, of a session of its own (whose parent stays), daemonized.
std::string three(const scene& s) {
  const std::string helper = s.helper(), out = " >>" + (s / "out") + " & ";
  return helper + " sleep" + out + helper + " setsid sleep" + out + helper + " daemon sleep" + out;
}

/// So many have said that they are what they are to be.
bool ready(const scene& s, int count) {
  return wait_until([&] {
    std::ifstream out(s / "out");
    int lines = 0;
    for (std::string line; std::getline(out, line);) lines += line.starts_with("ready") ? 1 : 0;
    return lines >= count;
  });
}

/// The line of docs/recipes.md that begins so, in a block of code.
std::string page_line(const std::string& start) {
  const std::string page = contents(recipes + "/../../docs/recipes.md");
  const std::size_t at = page.find("\n    " + start);
  REQUIRE_MESSAGE(at != std::string::npos, start);
  return page.substr(at + 5, page.find('\n', at + 1) - at - 5);
}

/// The same, between backticks.
std::string page_code(const std::string& start) {
  const std::string page = contents(recipes + "/../../docs/recipes.md");
  const std::size_t at = page.find("`" + start);
  REQUIRE_MESSAGE(at != std::string::npos, start);
  return page.substr(at + 1, page.find('`', at + 1) - at - 1);
}

/// A directory of programs for what is on the page, with the tool in it: the PATH.
std::string with_programs(const scene& s) {
  std::filesystem::create_directories(s / "bin");
  std::filesystem::create_symlink(INSTANCE_GUARD_TOOL, s / "bin/instance-guard");
  const char* before = std::getenv("PATH");
  return "PATH=" + (s / "bin") + ":" + (before != nullptr ? before : "/usr/bin:/bin");
}

void put_script(const scene& s, const std::string& name, const std::string& text) {
  std::ofstream(s / ("bin/" + name)) << "#!/bin/bash\n" << text << "\n";
  std::filesystem::permissions(s / ("bin/" + name), std::filesystem::perms::owner_all);
}

std::size_t helpers(const scene& s) {
  std::size_t count = 0;
  for (const auto& each : s.processes()) count += each.executable == s.helper() ? 1U : 0U;
  return count;
}

/// The words of a unit's ExecStart, with this tool, this name, and another command.
std::vector<std::string> unit_words(const std::string& name, const std::vector<std::string>& command) {
  std::istringstream unit(contents(recipes + "/shiva.service"));
  std::vector<std::string> words;
  for (std::string line; std::getline(unit, line);) {
    if (!line.starts_with("ExecStart=")) continue;
    std::istringstream parts(line.substr(10));
    for (std::string word; parts >> word && word != "--";) words.push_back(word);
  }
  REQUIRE(words.size() > 3);
  words[0] = INSTANCE_GUARD_TOOL;
  for (std::string& each : words)
    if (each == "shiva") each = name;
  words.push_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

}  // namespace

TEST_CASE("a shell script: trap with kill -- -$$ leaves children, the recipe leaves none") {
  SUBCASE("the pattern, killed") {
    const scene s;
    program script = s.start({"bash", "-c", trap_script, "script", three(s)});
    REQUIRE(script.read_until("started"));
    REQUIRE(ready(s, 3));
    script.signal(SIGKILL);
    script.wait();
    CHECK(helpers(s) >= 3);  // nobody ran the trap
    s.end();
  }
  SUBCASE("the pattern, in order, as a script starts it") {
    const scene s;
    // It does not lead a process group, so kill -- -$$ ends nobody.
    program script = s.start({"bash", "-c", "bash -c \"$1\" script \"$2\" & wait", "outer", trap_script, three(s)});
    REQUIRE(script.read_until("started"));
    REQUIRE(ready(s, 3));
    script.signal(SIGKILL);
    script.wait();
    for (const auto& each : s.processes())
      if (each.executable != s.helper()) ::kill(each.pid, SIGTERM);  // the inner script
    CHECK(helpers(s) >= 3);                                          // its trap waits for them now, for ever
    s.end();
  }
  SUBCASE("the recipe, however it ends") {
    for (const int number : {0, SIGTERM, SIGKILL}) {
      const scene s;
      program script =
          s.start({recipes + "/test_runner.sh", "bash", "-c", three(s) + " read line"}, {.environment = with_tool()});
      REQUIRE(ready(s, 3));
      if (number == 0) script.in().reset();
      else script.signal(number);
      script.wait();
      CHECK(wait_until([&] { return s.empty(); }));
    }
  }
}

TEST_CASE("a python bot: a check-then-write pid file believes any number, the name does not") {
  if (!has("python3")) return;
  const scene s;
  canary innocent;
  const std::string file = s / "shiva.pid";
  std::ofstream(file) << innocent.pid();  // the bot was killed, its number is somebody else's by now
  const std::string bot = s / "bot.py";
  std::ofstream(bot) << "import os, sys\n"
                        "LOCKFILE = '"
                     << file
                     << "'\n"
                        "if os.path.exists(LOCKFILE):\n"
                        "    try:\n"
                        "        os.kill(int(open(LOCKFILE).read()), 0)\n"
                        "        print('already running', flush=True)\n"
                        "        sys.exit(1)\n"
                        "    except ProcessLookupError:\n"
                        "        os.remove(LOCKFILE)\n"
                        "open(LOCKFILE, 'w').write(str(os.getpid()))\n"
                        "print('trading', flush=True)\n";
  program refused = s.start({"python3", bot});
  CHECK(refused.read_line() == "already running");  // nobody runs
  refused.wait();
  const std::string plain = s / "plain.py";
  std::ofstream(plain) << "import sys\nprint('trading', flush=True)\nsys.stdin.read()\n";
  const std::string name = unique_name("python");
  const std::vector<std::string> words = run_words({"--name", name}, {"python3", plain});
  program killed = s.start(words);
  REQUIRE(killed.read_until("trading"));
  CHECK(run_tool(s, {"run", "--name", name, "--", "true"}).code == 75);
  killed.signal(SIGKILL);
  killed.wait();
  program next = s.start(words);
  CHECK(next.read_until("trading"));
  next.in().reset();
  CHECK(next.wait()->code() == 0);
}

TEST_CASE("an agent's session: kill -- -$AGENT_SESSION_PID misses who has left, the hook does not") {
  SUBCASE("the pattern") {
    const scene s;
    program session =
        s.start({"setsid", "-w", "bash", "-c",
                 "export AGENT_SESSION_PID=$$; " + three(s) + "echo started; read line; kill -- -$AGENT_SESSION_PID"});
    REQUIRE(session.read_until("started"));
    REQUIRE(ready(s, 3));
    session.in().reset();
    session.wait();
    CHECK(helpers(s) >= 2);  // what called setsid, and what was daemonized
    s.end();
  }
  SUBCASE("the hook, after the session was killed together with its tool") {
    const scene s;
    const std::string id = unique_name("session");
    // What has left the tool's tree on purpose, but not the session.
    program kept = s.start(s.words({"daemon", "sleep"}), {.environment = {"INSTANCE_GUARD_SESSION=" + id}});
    REQUIRE(kept.read_until("ready"));
    kept.wait();
    program session = s.start(run_words({"--session", id}, {"bash", "-c", three(s) + "echo started; read line"}));
    REQUIRE(session.read_until("started"));
    session.signal(SIGKILL);
    session.wait();
    program hook = s.start({recipes + "/agent_hook"}, {.environment = with_tool(), .merge_err = true});
    hook.write("{\"session_id\": \"" + id + "\", \"reason\": \"exit\"}\n");
    hook.in().reset();
    const std::string said = hook.read_all();
    CAPTURE(said);
    CHECK(hook.wait()->code() == 0);
    CHECK(wait_until([&] { return s.empty(); }));
  }
  SUBCASE("the hooks of Claude Code: marked at the start, ended at the end") {
    const scene s;
    canary innocent;
    const std::string id = unique_name("session");
    const auto hook = [&](const std::string& event) {
      std::vector<std::string> environment = with_tool();
      environment.push_back("CLAUDE_ENV_FILE=" + (s / "env"));
      program one = s.start({recipes + "/agent_hook"}, {.environment = environment, .merge_err = true});
      one.write("{\"session_id\":\"" + id + "\",\"hook_event_name\":\"" + event + "\"}");
      one.in().reset();
      const std::string said = one.read_all();
      CHECK(one.wait()->code() == 0);
      return said;
    };
    CHECK(hook("SessionStart").empty());
    // As the agent runs each command: what is in the file first.
    program command = s.start({"bash", "-c", ". " + (s / "env") + "; " + s.helper() + " daemon sleep"});
    REQUIRE(command.read_until("ready"));
    command.wait();
    CHECK(hook("SessionEnd").find("ended 1 process") != std::string::npos);
    CHECK(s.empty());
    program reader = s.start({"python3", "-c",
                              "import json, re, sys\n"
                              "text = open(sys.argv[1]).read()\n"
                              "hooks = json.loads(re.search('```json\\n(.*?)```', text, re.S).group(1))['hooks']\n"
                              "print(sorted(hooks), {hooks[each][0]['hooks'][0]['type'] for each in hooks})",
                              recipes + "/../../docs/recipes.md"});
    CHECK(reader.read_line() == "['SessionEnd', 'SessionStart'] {'command'}");
    reader.wait();
  }
  SUBCASE("the hook without a session, or with another's") {
    const scene s;
    canary innocent;
    for (const std::string& text : {std::string("{}"), std::string("{\"session_id\": \"; rm -rf /\"}")}) {
      program hook = s.start({recipes + "/agent_hook"}, {.environment = with_tool(), .merge_err = true});
      hook.write(text);
      hook.in().reset();
      CHECK(hook.read_all().empty());
      CHECK(hook.wait()->code() == 0);
    }
  }
}

TEST_CASE("alias claude, from the page: everything ends with the session, but the dev server that is meant to stay") {
  for (const int number : {0, SIGHUP, SIGKILL}) {
    CAPTURE(number);
    const scene s;
    const std::string alias = page_line("alias claude="), server = page_code("INSTANCE_GUARD_KEEP=1 ");
    const std::string path = with_programs(s);
    put_script(s, "npm", "[ \"$*\" = 'run dev' ] && exec " + s.helper() + " daemon sleep >>" + (s / "out"));
    put_script(s, "claude", server + "\n" + three(s) + "echo started with $*; read line");
    program shell =
        s.start({"bash", "-c", "shopt -s expand_aliases\n" + alias + "\nclaude --resume\n:"}, {.environment = {path}});
    CHECK(shell.read_until("started") == "started with --resume");
    REQUIRE(ready(s, 4));
    const std::vector<pid_t> tools = children_of(shell.pid());
    REQUIRE(tools.size() == 1);
    if (number == 0) shell.in().reset();
    else ::kill(tools.front(), number);
    CHECK(shell.wait());
    CHECK(wait_until([&] { return s.processes().size() == 1; }));
    s.end();
  }
}

TEST_CASE("a python bot that must exist once, by the line of the page") {
  if (!has("python3") || !has("git")) return;
  const scene s;
  const std::string name = unique_name("bot"), wallet = unique_name("wallet");
  std::string line = page_line("instance-guard run --name shiva --name wallet-0x39a1 ");
  for (const auto& [what, instead] :
       {std::pair{"--name shiva"s, "--name " + name}, std::pair{"--name wallet-0x39a1"s, "--name " + wallet}})
    line.replace(line.find(what), what.size(), instead);
  const std::string path = with_programs(s), source = s / "source";
  std::filesystem::create_directories(source + "/shiva");
  std::ofstream(source + "/shiva/__main__.py") << "import sys\nprint('trading', flush=True)\nsys.stdin.read()\n";
  const std::string git = "git -c user.name=a -c user.email=a@example.org ";
  const auto in_source = [&](const std::string& words, bool merge_err = false) {
    return s.start(
        {"bash", "-c", "cd \"$0\" || exit 1\n" + words, source},
        {.environment = {path, "GIT_CONFIG_GLOBAL=/dev/null", "PYTHONDONTWRITEBYTECODE=1"}, .merge_err = merge_err});
  };
  program commit =
      in_source("{ git init -q && " + git + "commit -q --allow-empty -m one; } >&2 && git rev-parse --short HEAD");
  const std::string head = commit.read_line().value_or("");
  REQUIRE(commit.wait()->success());
  program bot = in_source(line);
  REQUIRE(bot.read_until("trading"));
  const tool_result status = run_tool(s, {"status", name});
  CAPTURE(status.out);
  CHECK(status.says("version " + head));
  CHECK(status.says("python3 -m shiva"));
  CHECK(status.says(wallet));
  program second = in_source(line, true);
  CHECK(second.read_all().starts_with(name + ": already running: pid "));
  CHECK(second.wait()->code() == 75);
  CHECK(run_tool(s, {"run", "--name", wallet, "--", "true"}).code == 75);
  bot.in().reset();
  CHECK(bot.wait()->code() == 0);
  CHECK(run_tool(s, {"status", name}).code == 3);
}

TEST_CASE("cron: flock -n is held up by a child that inherited it, the name is not, and does not overlap") {
  SUBCASE("the pattern") {
    if (!has("flock")) return;
    const scene s;
    const std::string lock = s / "lock";
    program job = s.start({"flock", "-n", lock, "bash", "-c", s.helper() + " setsid sleep >>" + (s / "out") + " &"});
    CHECK(job.wait()->code() == 0);
    REQUIRE(ready(s, 1));
    program next = s.start({"flock", "-n", lock, "true"});
    CHECK(next.wait()->code() == 1);  // the job is over, and still nobody may start
    s.end();
  }
  SUBCASE("the recipe's line") {
    const scene s;
    const std::string name = unique_name("nightly");
    std::string line = contents(recipes + "/nightly.cron");
    line = line.substr(line.find("instance-guard"));
    line.resize(line.find('\n'));
    const auto put = [&line](const std::string& what, const std::string& instead) {
      const std::size_t at = line.find(what);
      REQUIRE(at != std::string::npos);
      line.replace(at, what.size(), instead);
    };
    put("instance-guard", INSTANCE_GUARD_TOOL);
    put("--name nightly", "--name " + name);
    put("/srv/jobs/nightly", "bash -c '" + s.helper() + " setsid sleep >&2 & echo started; read line'");
    program job = s.start({"bash", "-c", line});
    REQUIRE(job.read_until("started"));
    program beside = s.start({"bash", "-c", line}, {.merge_err = true});
    CHECK(beside.read_all().empty());
    CHECK(beside.wait()->code() == 0);
    job.in().reset();
    job.wait();
    CHECK(s.empty());
    CHECK(run_tool(s, {"run", "--name", name, "--", "true"}).code == 0);
  }
}

TEST_CASE("pytest with xdist and a time limit leaves no worker") {
  std::string python;
  for (const char* each : {"python3", "/usr/bin/python3"})
    if (std::system((std::string(each) + " -c 'import pytest, xdist' 2>/dev/null").c_str()) == 0) python = each;
  if (python.empty()) {
    MESSAGE("skipped: python3-pytest and python3-pytest-xdist are not installed");
    return;
  }
  const scene s;
  std::ofstream(s / "test_slow.py") << "import subprocess, time\n"
                                       "def test_a():\n"
                                       "    subprocess.Popen(['"
                                    << s.helper()
                                    << "', 'setsid', 'ignore', 'sleep'])\n"
                                       "    time.sleep(600)\n"
                                       "def test_b():\n    time.sleep(600)\n";
  // Long enough for the workers to start; on a machine that is too busy for that once more.
  bool started = false;
  for (const std::string limit : {"4s", "60s"}) {
    if (started) break;
    program tests =
        s.start(run_words({"--timeout", limit, "--grace", "300ms"},
                          {python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", s / "test_slow.py"}));
    started = wait_until([&] { return helpers(s) > 0 || tests.ended(); }, 90s) && helpers(s) > 0;
    CHECK(tests.wait(90s)->code() == 124);
    CHECK(s.empty());
  }
  CHECK(started);
}

TEST_CASE("one name for a service manager and a terminal: the unit's command") {
  const scene s;
  const std::string name = unique_name("unit");
  const std::string command =
      "trap 'echo stopping; exit 0' TERM; " + three(s) + "echo started; while :; do sleep 0.1; done";
  program service = s.start(unit_words(name, {"bash", "-c", command}));
  REQUIRE(service.read_until("started"));
  const tool_result by_hand = run_tool(s, {"run", "--name", name, "--", "true"}, {.merge_err = true});
  CHECK(by_hand.code == 75);
  CHECK(by_hand.says("pid " + std::to_string(service.pid())));
  SUBCASE("KillMode=mixed: TERM to the tool alone, which gives its tree the grace") {
    service.signal(SIGTERM);
    CHECK(service.read_until("stopping"));
    service.wait();
    CHECK(s.empty());
  }
  SUBCASE("who waits tells the service manager for whom") {
    const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = s / "notify";
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    REQUIRE(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    program waiting =
        s.start(run_words({"--name", name, "--wait", "forever"}, {"true"}), {.environment = {"NOTIFY_SOCKET=" + path}});
    std::string told;
    CHECK(wait_until([&] {
      char text[512];
      const ssize_t size = ::recv(socket, text, sizeof text, MSG_DONTWAIT);
      if (size > 0) told.append(text, static_cast<std::size_t>(size)).push_back('\n');
      return told.find("STATUS=waiting for pid " + std::to_string(service.pid())) != std::string::npos;
    }));
    CAPTURE(told);
    service.signal(SIGTERM);
    service.wait();
    CHECK(waiting.wait()->code() == 0);
    ::close(socket);
  }
}

TEST_CASE("the launchd job is one that launchd can read, and starts the tool with the same name") {
  if (!has("python3")) return;
  const scene s;
  program reader =
      s.start({"python3", "-c",
               "import plistlib, sys\n"
               "job = plistlib.load(open(sys.argv[1], 'rb'))\n"
               "print(' '.join(job['ProgramArguments']))\n"
               "print(job['KeepAlive'], job['ThrottleInterval'], job['ExitTimeOut'] > 20, 'StandardErrorPath' in job)",
               recipes + "/com.knox.shiva.plist"});
  const auto line = reader.read_line();
  REQUIRE(line);
  CHECK(line->find("instance-guard run --name shiva --grace 20s -- ") != std::string::npos);
  CHECK(reader.read_line() == "True 10 True True");
  reader.wait();
}

TEST_CASE("the weekly audit of launchd and of cron: what they run is what they say") {
  const scene s;
  program reader = s.start({"python3", "-c",
                            "import plistlib, sys\n"
                            "job = plistlib.load(open(sys.argv[1], 'rb'))\n"
                            "print(' '.join(job['ProgramArguments']))\n"
                            "print(job['StartCalendarInterval'] == {'Weekday': 0, 'Hour': 3, 'Minute': 0})",
                            recipes + "/com.knox.ghost-audit.plist"});
  const auto words = reader.read_line();
  REQUIRE(words);
  CHECK(words->find("instance-guard audit --discord --webhook-file ") != std::string::npos);
  CHECK(reader.read_line() == "True");
  reader.wait();

  std::string line = contents(recipes + "/ghost-audit.cron");
  const std::size_t job = line.find("out=$(instance-guard audit");
  REQUIRE(job != std::string::npos);
  CHECK(line.find("\n0 3 * * 0 ") != std::string::npos);
  line = line.substr(job);
  // Cron mails what is printed: nothing while all is well, the report else.
  for (const auto& [code, printed] : {std::pair{0, ""}, std::pair{2, "a ghost\n"}}) {
    std::ofstream(s / "instance-guard") << "#!/bin/sh\n[ $1 = audit ] && echo 'a ghost' && exit " << code << "\n";
    std::filesystem::permissions(s / "instance-guard", std::filesystem::perms::owner_all);
    program cron = s.start({"/bin/sh", "-c", "PATH=" + (s / "") + ":$PATH; " + line}, {.merge_err = true});
    CHECK(cron.read_all() == printed);
    CHECK(cron.wait()->success());
  }
}

TEST_CASE("as process 1 of a container, its entrypoint: reaps everything, passes signals on" *
          doctest::skip(!is_root())) {
  const scene s;
  if (std::system("unshare --pid --fork --mount-proc true 2>/dev/null") != 0) {
    MESSAGE("skipped: no pid namespace here");
    return;
  }
  CHECK(contents(recipes + "/Dockerfile")
            .find("ENTRYPOINT [\"instance-guard\", \"run\", \"--name\", \"shiva\", \"--grace\", \"8s\", \"--\"]") !=
        std::string::npos);
  const std::string script = "trap 'echo stopping; exit 7' TERM; for i in 1 2 3 4 5; do " + s.helper() +
                             " daemon exit=0 >&2; done; "
                             "for i in $(seq 100); do left=$(grep -ls '^State:.Z' /proc/[0-9]*/status | wc -l); [ "
                             "$left = 0 ] && break; sleep 0.1; done; "
                             "echo zombies $left; while :; do sleep 0.1; done";
  std::vector<std::string> words =
      run_words({"--name", unique_name("container"), "--grace", "8s"}, {"bash", "-c", script});
  words.insert(words.begin(), {"unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"});
  program container = s.start(words);
  CHECK(container.read_until("zombies") == "zombies 0");
  // The tool is the child of unshare; in there it is process 1.
  pid_t init = 0;
  std::ifstream children("/proc/" + std::to_string(container.pid()) + "/task/" + std::to_string(container.pid()) +
                         "/children");
  children >> init;
  REQUIRE(init > 0);
  ::kill(init, SIGTERM);
  CHECK(container.read_until("stopping"));
  CHECK(container.wait()->code() == 7);
  CHECK(wait_until([&] { return s.empty(); }));
}
