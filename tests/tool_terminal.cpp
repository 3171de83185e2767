// instance-guard run in a real terminal: all works as without it.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <instance_guard/pid_lockfile.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/tool.hpp"
#include "support/unique_name.hpp"

using namespace support;
using namespace std::string_literals;

namespace {

const std::string run = INSTANCE_GUARD_TOOL " run --grace 100ms -- ";

terminal shell(const scene& s) {
  return terminal::with_shell({s.mark(), "H=" + s.helper(), "G=" INSTANCE_GUARD_TOOL, "PATH=/usr/bin:/bin"});
}

/// A command that says what it gets from the terminal.
const std::string listener =
    "bash -c 'for s in INT QUIT WINCH CONT TSTP; do trap \"echo got-$s\" $s; done; echo rea''dy;"
    " while :; do read -t 0.05; done'";  // without a child, which would stop by itself

}  // namespace

TEST_CASE("Ctrl-C and Ctrl-\\ end the command, and give the prompt back") {
  const scene s;
  terminal t = shell(s);
  for (const auto& [key, code] : {std::pair{'C', "130"}, std::pair{'\\', "131"}}) {
    t.type(run + "$H fork sleep\n");
    REQUIRE(t.see("ready"));
    t.press(key);
    REQUIRE(t.see("% "));
    t.type("echo co''de=$?\n");
    CHECK(t.see("code="s + code));
    CHECK(wait_until([&] { return s.processes().size() == 1; }));  // the shell
    REQUIRE(t.see("% "));
  }
}

TEST_CASE("what the terminal sends arrives once, and the command decides") {
  const scene s;
  terminal t = shell(s);
  t.type(run + listener + "\n");
  REQUIRE(t.see("ready"));
  for (const auto& [key, said] : {std::pair{'C', "got-INT"}, std::pair{'\\', "got-QUIT"}, std::pair{'Z', "got-TSTP"}}) {
    t.press(key);
    REQUIRE(t.see(said));
  }
  t.resize(33, 77);
  REQUIRE(t.see("got-WINCH"));
  t.press('C');
  REQUIRE(t.see("got-INT"));
  CHECK(t.skipped().find("got-") == std::string::npos);
}

TEST_CASE("Ctrl-C ends a script around it, as without the tool") {
  const scene s;
  terminal t = shell(s);
  t.type("bash -c 'while :; do " + run + "$H sleep; done'\n");
  REQUIRE(t.see("ready"));
  t.press('C');
  REQUIRE(t.see("% "));
  t.type("echo co''de=$?\n");
  CHECK(t.see("code=130"));
}

TEST_CASE("Ctrl-Z gives the prompt back, fg and bg go on") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "$H sleep\n");
  REQUIRE(t.see("ready"));
  const pid_t job = t.front();
  CHECK(job != t.leader());
  for (int round = 0; round < 3; ++round) {
    t.press('Z');
    REQUIRE(t.see("Stopped"));
    REQUIRE(t.see("% "));
    CHECK(t.front() == t.leader());
    t.type("fg\n");
    CHECK(wait_until([&] { return t.front() == job; }));
    for (const found_process& each : s.processes())
      CHECK(wait_until([&] { return support::detail::state_of("/proc/" + std::to_string(each.pid)) != 'T'; }));
  }
  t.press('Z');
  REQUIRE(t.see("Stopped"));
  t.type("bg; jobs\n");
  REQUIRE(t.see("Running"));
  t.type("kill %1; wait %1; echo co''de=$?\n");
  CHECK(t.see("code=143"));
}

TEST_CASE("a command that stops by itself gives the prompt back as well") {
  const scene s;
  terminal t = shell(s);
  for (const char* number : {"STOP", "TSTP"}) {
    t.type(run + "sh -c 'kill -" + number + " $$; echo went-''on'\n");
    REQUIRE(t.see("Stopped"));
    REQUIRE(t.see("% "));
    t.type("fg\n");
    CHECK(t.see("went-on"));
    REQUIRE(t.see("% "));
  }
}

TEST_CASE("a whole pipeline stops and goes on, and outlives the tool") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "$H sleep | sed -u 's/^/through /'; echo en''ded\n");
  REQUIRE(t.see("through ready"));
  const pid_t job = t.front();
  t.press('Z');
  REQUIRE(t.see("Stopped"));
  REQUIRE(t.see("% "));
  t.type("fg\n");
  REQUIRE(wait_until([&] { return t.front() == job; }));
  t.press('C');
  REQUIRE(t.see("% "));
  // The tool ends its tree, and not its neighbours.
  t.type(run + "sh -c '$H setsid ignore sleep & read go' | { sed -u 's/^/through /'; echo neigh''bour lives; }\n");
  REQUIRE(t.see("through ready"));
  t.type("\n");
  CHECK(t.see("neighbour lives"));
  CHECK(wait_until([&] { return s.processes().size() == 1; }));
}

TEST_CASE("a start in the background neither takes the terminal nor stops") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "sh -c 'echo from behi''nd; $H sleep' &\n");
  REQUIRE(t.see("from behind"));
  REQUIRE(t.see("ready"));
  t.type("jobs\n");
  REQUIRE(t.see("Running"));
  CHECK(t.front() == t.leader());
  t.type("kill -9 %1; wait %1; echo co''de=$?\n");
  CHECK(t.see("code=137"));
  CHECK(wait_until([&] { return s.processes().size() == 1; }));
  // One that reads waits for the foreground, as it would without the tool.
  t.type(run + "sh -c 'read x; echo got-$x' &\n");
  REQUIRE(wait_until([&] {
    t.type("jobs\n");
    return t.see("% ") && t.skipped().find("Stopped") != std::string::npos;
  }));
  t.type("fg\n");
  REQUIRE(t.see("fg"));
  t.type("line\n");
  CHECK(t.see("got-line"));
}

TEST_CASE("under stty tostop a command that writes in the background stops and goes on as without the tool") {
  const scene s;
  terminal t = shell(s);
  t.type("stty tostop\n");
  REQUIRE(t.see("% "));
  for (const std::string& start : {""s, run}) {
    CAPTURE(start);
    t.type(start + "sh -c 'echo from behi''nd; exit 3' &\n");
    REQUIRE(wait_until([&] {
      t.type("jobs\n");
      return t.see("% ") && t.skipped().find("Stopped") != std::string::npos;
    }));
    t.type("fg\n");
    REQUIRE(t.see("from behind"));
    REQUIRE(t.see("% "));
    t.type("echo co''de=$?\n");
    CHECK(t.see("code=3"));
    REQUIRE(t.see("% "));
  }
}

TEST_CASE("under stty tostop the tool's own words, and its end, do not stop a start in the background") {
  const scene s;
  const std::string name = unique_name("tostop");
  auto killed = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(killed.read_until("ready"));
  killed.signal(SIGKILL);
  killed.wait();
  REQUIRE(wait_until([&] { return instance_guard::query_lock(name).state == instance_guard::lock_state::abandoned; }));
  terminal t = shell(s);
  t.type("stty tostop\n");
  REQUIRE(t.see("% "));
  t.type("$G run --name " + name + " -- sh -c 'exit 4' &\n");
  REQUIRE(t.see("did not end cleanly"));
  t.type("wait $!; echo co''de=$?\n");
  CHECK(t.see("code=4"));
  // Nor does one that waits, and says so.
  auto holder = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(holder.read_until("ready"));
  t.type("$G run --name " + name + " --wait 1m -- sh -c 'exit 5' &\n");
  REQUIRE(t.see("waiting for pid"));
  REQUIRE(t.see("so far"));
  holder.signal(SIGTERM);
  holder.wait();
  REQUIRE(t.see("started, after"));
  t.type("wait $!; echo co''de=$?\n");
  CHECK(t.see("code=5"));
}

TEST_CASE("kill -9 of a job ends its whole tree, also what left its process group") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "sh -c '$H setsid ignore sleep & wait' &\n");
  REQUIRE(t.see("ready"));
  t.type("kill -9 %1\n");
  CHECK(wait_until([&] { return s.processes().size() == 1; }));
}

TEST_CASE("the terminal's settings are restored when the command could not do it") {
  const scene s;
  for (const char* end : {"kill -9 \\$\\$", "exit 3"}) {
    CAPTURE(end);
    // No interactive shell around it, which would restore them as well.
    terminal t(
        {"sh", "-c", run + "sh -c \"stty raw -echo; echo rea''dy; read go; " + end + "\"; echo restored; read go"},
        {s.mark()});
    REQUIRE(t.see("ready"));
    CHECK_FALSE(t.has(ICANON));
    t.type("\n");
    REQUIRE(t.see("restored"));
    CHECK(t.has(ICANON));
    CHECK(t.has(ECHO));
  }
  terminal t({"sh", "-c", run + "stty -echo; echo kept; read go"}, {s.mark()});
  REQUIRE(t.see("kept"));
  CHECK_FALSE(t.has(ECHO));
}

TEST_CASE("a password prompt reads without an echo") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "bash -c 'read -s -p pass''word: x; echo; echo \"got <$x>\"'\n");
  REQUIRE(t.see("password:"));
  CHECK(wait_until([&] { return !t.has(ECHO); }));
  t.type("secret\n");
  REQUIRE(t.see("got <secret>"));
  CHECK(t.skipped().find("secret") == std::string::npos);
}

TEST_CASE("an interactive shell has its jobs, its Ctrl-C and its end") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "bash --norc --noprofile --noediting -i\n");
  REQUIRE(t.see("% "));
  const pid_t inner = t.front();
  CHECK(inner != t.leader());
  t.type("$H sleep\n");
  REQUIRE(t.see("ready"));
  const pid_t job = t.front();
  CHECK(job != inner);
  t.press('Z');
  REQUIRE(t.see("Stopped"));
  REQUIRE(t.see("% "));
  t.type("fg\n");
  REQUIRE(wait_until([&] { return t.front() == job; }));
  t.press('C');
  REQUIRE(t.see("% "));
  t.type("exit 5\n");
  REQUIRE(t.see("exit"));
  REQUIRE(t.see("% "));
  t.type("echo co''de=$?\n");
  CHECK(t.see("code=5"));
  CHECK(t.front() == t.leader());
}

TEST_CASE("less and vim stop and go on") {
  const scene s;
  terminal t = shell(s);
  const std::string text = "the text to be seen";
  std::ofstream(s / "text") << text << "\n";
  const char* const vim = ::access("/usr/bin/vim", X_OK) == 0 ? "vim" : "vim.tiny";
  struct {
    const char* program;
    const char* options;
    const char* leave;
  } const cases[] = {{"less", " ", "q"}, {vim, " -u NONE -N ", ":q!\r"}};
  for (const auto& each : cases) {
    if (::access(("/usr/bin/"s + each.program).c_str(), X_OK) != 0) {
      MESSAGE("skipped: no " << each.program);
      continue;
    }
    t.resize(24, 80);
    t.type("LESS= " + run + each.program + each.options + s / "text" + "\n");
    REQUIRE(t.see(text));
    for (int round = 0; round < 2; ++round) {
      // less takes a Ctrl-Z that comes just before it waits for a key only with that key, also without the tool.
      bool stopped = false;
      for (int tries = 0; tries < 10 && !stopped; ++tries) {
        t.press('Z');
        stopped = t.see("Stopped", std::chrono::seconds(2));
      }
      REQUIRE(stopped);
      REQUIRE(t.see("% "));
      // No key is lost while the terminal changes hands: what is typed ahead is the program's.
      t.type("fg\n"s + (round == 1 ? each.leave : ""));
      REQUIRE(t.see(text));
    }
    REQUIRE(t.see("% "));
    t.type("echo co''de=$?\n");
    REQUIRE(t.see("code=0"));
    REQUIRE(t.see("% "));
  }
}

TEST_CASE("the end of the terminal ends the tree") {
  const scene s;
  for (const char* how : {"", " &"}) {
    CAPTURE(how);
    terminal t = shell(s);
    t.type(run + "sh -c 'trap \"\" HUP; $H setsid ignore sleep & wait'" + how + "\n");
    REQUIRE(t.see("ready"));
    t.close();
    CHECK(wait_until([&] { return s.empty(); }));
  }
}

TEST_CASE("a command that handles the end of its terminal is let do so") {
  const scene s;
  const std::string file = s / "hung-up";
  terminal t = shell(s);
  t.type(INSTANCE_GUARD_TOOL " run --grace 10s -- sh -c 'trap \"sleep 0.2; echo yes >" + file +
         "; exit\" HUP; echo rea''dy; while :; do sleep 0.1; done'\n");
  REQUIRE(t.see("ready"));
  t.close();
  CHECK(wait_until([&] { return s.empty(); }));
  CHECK(std::filesystem::exists(file));
}

TEST_CASE("a stopped job ends with its shell") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "$H sleep\n");
  REQUIRE(t.see("ready"));
  t.press('Z');
  REQUIRE(t.see("Stopped"));
  REQUIRE(t.see("% "));
  ::kill(t.leader(), SIGKILL);
  CHECK(wait_until([&] { return s.empty(); }));
}

TEST_CASE("where nobody could continue it, Ctrl-Z does not stop") {
  const scene s;
  terminal t({INSTANCE_GUARD_TOOL, "run", "--", "sh", "-c", s.helper() + " ignore sleep & read x; echo got-$x"},
             {s.mark()});
  REQUIRE(t.see("ready"));
  t.press('Z');
  t.type("line\n");
  CHECK(t.see("got-line"));
}

TEST_CASE("the end of the shell that was killed ends a run in its background, but not under nohup") {
  const scene s;
  terminal t = shell(s);
  t.type(run + "$H setsid ignore sleep &\n");
  REQUIRE(t.see("ready"));
  t.type("nohup " + run + "$H renamed=kept sleep >/dev/null & sleep 0.1; echo both\n");
  REQUIRE(t.see("both"));
  REQUIRE(wait_until([&] { return s.processes().size() == 6; }));  // shell, two tools, three helpers
  ::kill(t.leader(), SIGKILL);
  CHECK(wait_until([&] { return s.processes().size() == 2; }));
  s.end();
}

TEST_CASE("the end of the ssh connection that a run without a terminal came through ends it") {
  const scene s;
  std::string mark = s.mark();
  forked server([&](teller) {
    ::prctl(PR_SET_NAME, "sshd", 0, 0, 0);
    if (::fork() == 0) {
      ::setsid();
      ::setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22", 1);
      ::putenv(mark.data());
      const std::string command = run + s.helper() + " setsid ignore sleep >&2";
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
    for (;;) ::pause();
    return 0;
  });
  REQUIRE(wait_until([&] { return s.processes().size() >= 3; }));  // the tool, two helpers
  server.signal(SIGKILL);
  server.wait();
  CHECK(wait_until([&] { return s.empty(); }));
}
