// instance-guard run with names, time limits and sessions.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <instance_guard/pid_lockfile.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/own_pid_namespace.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/tool.hpp"
#include "support/unique_name.hpp"

using namespace support;
using instance_guard::lock_state;
using instance_guard::query_lock;

namespace {

std::chrono::system_clock::time_point file_time(const std::filesystem::path& path) {
  struct stat facts = {};
  return std::chrono::system_clock::time_point(
      std::chrono::seconds(::stat(path.c_str(), &facts) == 0 ? facts.st_mtime : 0));
}

int code_of(program& tool) { return tool.wait().value_or(no_status).code(); }

}  // namespace

TEST_CASE("a second run with the name is refused in one line that says who has it") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  auto second = s.start(run_words({"--name", name}, {"echo", "started"}), {.merge_err = true});
  const std::string said = second.read_all();
  CHECK(code_of(second) == 75);
  CHECK(lines_of(said).size() == 1);
  CHECK(said.starts_with(name + ": already running: pid " + std::to_string(first.pid())));
  auto other = s.start(run_words({"--name", name, "--conflict-exit-code", "0", "--quiet"}, {"echo", "started"}),
                       {.merge_err = true});
  CHECK(other.read_all().empty());
  CHECK(code_of(other) == 0);
  first.signal(SIGTERM);
  CHECK(code_of(first) == 128 + SIGTERM);
  CHECK(query_lock(name).state == lock_state::free);
}

TEST_CASE("the record describes the command, not the tool") {
  const scene s;
  const std::string name = unique_name("run");
  const auto command = s.words({"sleep"});
  auto tool = s.start(run_words({"--name", name, "--tag", "1.4.2", "--grace", "1s"}, command));
  REQUIRE(tool.read_until("ready"));
  const auto holder = query_lock(name).holder;
  REQUIRE(holder);
  CHECK(holder->process.pid == tool.pid());
  CHECK(holder->arguments == command);
  CHECK(holder->executable == s.helper());
  CHECK(holder->version == "1.4.2");
  CHECK(holder->grace == std::chrono::seconds(1));
  CHECK_FALSE(query_lock(name).replaced_code);
  tool.signal(SIGTERM);
  tool.wait();
}

TEST_CASE("of several names all are held, or none") {
  const scene s;
  const std::string a = unique_name("run"), b = unique_name("run"), c = unique_name("run");
  auto holder = s.start(run_words({"--name", b}, s.words({"sleep"})));
  REQUIRE(holder.read_until("ready"));
  auto refused = s.start(run_words({"--name", c, "--name", b, "--name", a}, {"true"}), {.merge_err = true});
  CHECK(refused.read_all().starts_with(c + ": " + b + " is held already: pid " + std::to_string(holder.pid()) + ", "));
  CHECK(code_of(refused) == 75);
  terminal front(run_words({"--name", c, "--name", b}, {"true"}), {s.mark()});
  CHECK(front.see(c + ": " + b + " is held already, not started (exit 75)"));
  CHECK(front.see("instance-guard status " + b));
  CHECK(front.see("instance-guard stop " + b));
  CHECK(front.see("or start yours with --replace"));
  CHECK(query_lock(a).state == lock_state::free);
  CHECK(query_lock(c).state == lock_state::free);
  auto both = s.start(run_words({"--name", c, "--name", a}, s.words({"sleep"})));
  REQUIRE(both.read_until("ready"));
  CHECK(query_lock(a).state == lock_state::held);
  CHECK(query_lock(c).state == lock_state::held);
  for (program* each : {&both, &holder}) {
    each->signal(SIGTERM);
    each->wait();
  }
  CHECK(query_lock(a).state == lock_state::free);
}

TEST_CASE("a run that waits says for whom, and starts when the holder leaves") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  auto second = s.start(run_words({"--name", name, "--wait", "1m"}, {"echo", "started"}), {.merge_err = true});
  const auto waiting = second.read_line();
  REQUIRE(waiting);
  CHECK(waiting->starts_with(name + ": waiting for pid " + std::to_string(first.pid())));
  CHECK(waiting->ends_with("at most 1m"));
  first.signal(SIGTERM);
  CHECK(second.read_line() == "started");
  CHECK(code_of(second) == 0);
}

TEST_CASE("on a terminal a run that waits shows how long it has waited, second by second") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  terminal front(run_words({"--name", name, "--wait", "1m"}, {"echo", "now"}), {s.mark()});
  CHECK(front.see(name + ": waiting for pid " + std::to_string(first.pid())));
  CHECK(front.see("for 1s so far"));
  CHECK(front.see("for 2s so far"));
  first.signal(SIGTERM);
  CHECK(front.see(name + ": started, after "));
  CHECK(front.see("now"));
}

TEST_CASE("Ctrl-C gives up a run that waits, which holds nothing then; the holder goes on") {
  const scene s;
  const std::string a = unique_name("run"), b = unique_name("run");
  auto first = s.start(run_words({"--name", b}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  terminal front = terminal::with_shell({s.mark(), "PATH=/usr/bin:/bin"});
  front.type(INSTANCE_GUARD_TOOL " run --name " + a + " --name " + b + " --wait 1m -- echo sta''rted\n");
  CHECK(front.see(b + ": waiting for pid " + std::to_string(first.pid()) + " ("));
  CHECK(front.see("at most 1m"));
  CHECK(front.see("so far, Ctrl-C gives up"));
  CHECK(query_lock(a).state == lock_state::held);
  front.press('C');
  REQUIRE(front.see("% "));
  CHECK(front.skipped().find("started") == std::string::npos);
  front.type("echo co''de=$?\n");
  CHECK(front.see("code=130"));
  CHECK(query_lock(a).state == lock_state::free);
  CHECK_FALSE(first.ended());
  first.signal(SIGTERM);
  first.wait();
}

TEST_CASE(
    "after the one Ctrl-C that ended the command of a run that had waited, a second does not wait for the grace") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  terminal front = terminal::with_shell({s.mark(), "PATH=/usr/bin:/bin", "H=" + s.helper()});
  front.type(INSTANCE_GUARD_TOOL " run --name " + name +
             " --wait 1m --grace 10m -- sh -c '$H setsid ignore sleep & wait'\n");
  REQUIRE(front.see("so far"));
  first.signal(SIGTERM);
  first.wait();
  REQUIRE(front.see("ready"));
  front.press('C');
  const std::string sh = std::filesystem::canonical("/bin/sh");
  const auto shell_is_gone = [&] {
    for (const found_process& each : s.processes())
      if (each.executable == sh && each.pid != front.leader()) return false;
    return true;
  };
  CHECK(wait_until(shell_is_gone));
  CHECK(query_lock(name).state == lock_state::held);  // the grace of what it left
  bool prompt = false;
  for (int tries = 0; tries < 20 && !prompt; ++tries) {
    front.press('C');
    prompt = front.see("% ", std::chrono::seconds(1));
  }
  REQUIRE(prompt);
  front.type("echo co''de=$?\n");
  CHECK(front.see("code=130"));
  CHECK(query_lock(name).state == lock_state::free);
}

TEST_CASE("who waits for what a killed run left says how many, whose, since when; then that it did not end cleanly") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name, "--grace", "1m"}, s.words({"ignore", "fan=2", "sleep"})));
  for (int i = 0; i < 2; ++i) REQUIRE(first.read_until("ready"));
  const auto holder = query_lock(name).holder;
  REQUIRE(holder);
  const std::string pid = std::to_string(first.pid());
  // The date of the file tells when somebody saw the end; it counts in seconds.
  REQUIRE(wait_until([&] { return std::chrono::system_clock::now() > holder->acquired_at + std::chrono::seconds(3); }));
  first.signal(SIGKILL);
  first.wait();
  REQUIRE(wait_until([&] { return query_lock(name).state == lock_state::cleaning_up; }));
  // (Not before it has been seen: until then nobody can say since when.)
  REQUIRE(wait_until([&] { return file_time(query_lock(name).path) > holder->acquired_at + std::chrono::seconds(1); }));
  auto second = s.start(run_words({"--name", name}, {"echo", "go"}), {.merge_err = true});
  const auto waiting = second.read_line();
  REQUIRE(waiting);
  CAPTURE(*waiting);
  CHECK(waiting->starts_with(name + ": waiting for 3 children of pid " + pid + " (dead for "));
  CHECK(waiting->ends_with("s) to end, at most 1m 10s"));
  for (const found_process& each : s.processes())
    if (each.executable == s.helper()) ::kill(each.pid, SIGKILL);
  const auto started = second.read_line();
  REQUIRE(started);
  CAPTURE(*started);
  CHECK(started->starts_with(name + ": started, after "));
  CHECK(started->find("; the previous run (pid " + pid + ", started ") != std::string::npos);
  CHECK(started->ends_with(" ago) did not end cleanly"));
  CHECK(second.read_line() == "go");
  CHECK(code_of(second) == 0);
}

TEST_CASE("a start after a run that was killed says so in one line, or not at all with --quiet") {
  const scene s;
  const std::string name = unique_name("run");
  for (const bool quiet : {false, true}) {
    auto killed = s.start(run_words({"--name", name}, s.words({"sleep"})));
    REQUIRE(killed.read_until("ready"));
    killed.signal(SIGKILL);
    killed.wait();
    REQUIRE(wait_until([&] { return query_lock(name).state == lock_state::abandoned; }));
    std::vector<std::string> options = {"--name", name};
    if (quiet) options.push_back("--quiet");
    auto next = s.start(run_words(options, {"true"}), {.merge_err = true});
    const std::string said = next.read_all();
    CHECK(code_of(next) == 0);
    if (quiet) CHECK(said.empty());
    else
      CHECK(said.starts_with(name + ": started; the previous run (pid " + std::to_string(killed.pid()) + ", started "));
    if (!quiet) CHECK(said.ends_with(" ago) did not end cleanly\n"));
    CHECK(lines_of(said).size() == (quiet ? 0 : 1));
  }
}

TEST_CASE("a run that is ended while it waits holds nothing, and leaves nothing behind") {
  const scene s;
  const std::string a = unique_name("run"), b = unique_name("run");
  auto first = s.start(run_words({"--name", b}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  for (const int number : {SIGTERM, SIGINT}) {
    auto second =
        s.start(run_words({"--name", a, "--name", b, "--wait", "forever"}, {"echo", "started"}), {.merge_err = true});
    REQUIRE(second.read_until(b + ": waiting"));
    CHECK(wait_until([&] { return query_lock(a).state == lock_state::held; }));
    second.signal(number);
    CHECK(second.wait().value_or(no_status).signal() == number);
    CHECK(query_lock(a).state == lock_state::free);
  }
  first.signal(SIGTERM);
  first.wait();
}

TEST_CASE("the name is not free before the last process of a killed run has ended") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name, "--grace", "200ms"}, s.words({"fork", "setsid", "ignore", "sleep"})));
  REQUIRE(first.read_until("ready"));
  first.signal(SIGKILL);
  auto second = s.start(run_words({"--name", name}, {"sh", "-c", "echo started; read go"}));
  REQUIRE(second.read_until("started"));
  for (const found_process& each : s.processes()) CHECK_MESSAGE(each.executable != s.helper(), each.what);
  second.write("\n");
  CHECK(code_of(second) == 0);
}

TEST_CASE("--replace stops the holder, and never an ancestor of its own") {
  const scene s;
  const std::string name = unique_name("run");
  auto first = s.start(run_words({"--name", name}, s.words({"sleep"})));
  REQUIRE(first.read_until("ready"));
  auto second = s.start(run_words({"--name", name, "--replace"}, {"echo", "started"}));
  CHECK(second.read_line() == "started");
  CHECK(code_of(second) == 0);
  CHECK(code_of(first) == 128 + SIGTERM);
  std::vector<std::string> inner = run_words({"--name", name, "--replace"}, {"true"});
  auto outer = s.start(run_words({"--name", name}, inner), {.merge_err = true});
  CHECK(outer.read_all().ends_with(", not stopped: it is this process or an ancestor of it: exit 75\n"));
  CHECK(code_of(outer) == 75);
  terminal front(run_words({"--name", name}, inner), {s.mark()});
  CHECK(front.see("           not stopped: it is this process or an ancestor of it\r\n"));
  CHECK(front.see("next     instance-guard status " + name));
}

TEST_CASE("what means nothing without a name is refused, and nothing is started") {
  const scene s;
  const std::vector<std::vector<std::string>> wrong = {{"--wait", "1s"}, {"--wait", "0s"},
                                                       {"--replace"},    {"--scope", "user"},
                                                       {"--tag", "1.4"}, {"--conflict-exit-code", "0"}};
  for (const auto& options : wrong) {
    CAPTURE(options.front());
    auto tool = s.start(run_words(options, {"echo", "started"}), {.merge_err = true});
    CHECK(tool.read_all() == "instance-guard run: " + options.front() +
                                 ": means nothing without --name: nothing would exist once"
                                 " (see instance-guard run --help)\n");
    CHECK(code_of(tool) == 125);
  }
  auto quiet = s.start(run_words({"--quiet", "--grace", "1s"}, {"echo", "started"}), {.merge_err = true});
  CHECK(quiet.read_all() == "started\n");
  CHECK(code_of(quiet) == 0);
}

TEST_CASE("a time limit ends the tree with exit code 124") {
  const scene s;
  for (const char* tree : {"sleep", "fork setsid ignore sleep", "ignore stopped"}) {
    CAPTURE(tree);
    auto tool = s.start(run_words({"--timeout", "300ms", "--grace", "50ms"}, s.words(split(tree))));
    CHECK(code_of(tool) == 124);
    CHECK(s.empty());
  }
  auto quick = s.start(run_words({"--timeout", "forever"}, s.words({"exit=3"})));
  CHECK(code_of(quick) == 3);
}

TEST_CASE("SIGTERM and SIGHUP stop the tree with its stop signal and its grace") {
  const scene s;
  for (const int number : {SIGTERM, SIGHUP}) {
    auto slow = s.start(run_words({"--grace", "1m"}, s.words({"slow-term=100"})));
    REQUIRE(slow.read_until("ready"));
    slow.signal(number);
    CHECK(code_of(slow) == 0);
    auto stubborn = s.start(run_words({"--grace", "50ms"}, s.words({"ignore", "fork", "sleep"})));
    REQUIRE(stubborn.read_until("ready"));
    stubborn.signal(number);
    CHECK(code_of(stubborn) == 128 + SIGKILL);
    CHECK(s.empty());
  }
  auto other = s.start(run_words({"--stop-signal", "usr2"}, s.words({"sleep"})));
  REQUIRE(other.read_until("ready"));
  other.signal(SIGTERM);
  CHECK(code_of(other) == 128 + SIGUSR2);
  for (const auto& [text, number] : {std::pair("SIGRTMIN+3", SIGRTMIN + 3), {"rtmax-1", SIGRTMAX - 1}}) {
    auto real_time = s.start(run_words({"--stop-signal", text}, s.words({"sleep"})));
    REQUIRE(real_time.read_until("ready"));
    real_time.signal(SIGTERM);
    CHECK(code_of(real_time) == 128 + number);
  }
}

TEST_CASE("a fault is one line with its cure, which run has; on a terminal the cure has its own") {
  const scene s;
  const std::string name = unique_name("run");
  const int code = in_own_pid_namespace([&] {
    // Whoever it is, here it is root, whose locks are there; nothing can be made in it.
    if (::mount("none", "/run", "tmpfs", MS_RDONLY, nullptr) != 0) return no_namespace;
    auto tool = s.start(run_words({"--name", name}, {"echo", "started"}), {.merge_err = true});
    const std::string said = tool.read_all();
    if (lines_of(said).size() != 1 || code_of(tool) != 125) return 1;
    if (said.find(" (exit 125); cure: a file system that can be written\n") == said.npos) return 2;
    auto host = s.start(run_words({"--scope", "host", "--name", name}, {"echo", "started"}), {.merge_err = true});
    if (!host.read_all().ends_with(
            "; cure: mkdir -m 1777 /run/lock/instance_guard   as root, at each boot (tmpfiles.d)\n"))
      return 3;
    terminal front(run_words({"--name", name}, {"echo", "started"}), {s.mark()});
    return front.see(" (exit 125)\r\n  cure     a file system that can be written\r\n") ? 0 : 4;
  });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace, or nothing can be mounted in it");
  else CHECK(code == 0);
}

TEST_CASE("a second signal, later, does not wait for the grace") {
  const scene s;
  for (const int number : {SIGTERM, SIGINT}) {
    auto tool = s.start(run_words({"--grace", "10m"}, s.words({"ignore", "sleep"})));
    REQUIRE(tool.read_until("ready"));
    tool.signal(SIGTERM);
    CHECK(wait_until([&] { return tool.signal(number), tool.ended(); }));
    CHECK(code_of(tool) == 128 + SIGKILL);
  }
}

TEST_CASE("--session marks everything below") {
  const scene s;
  auto tool = s.start(run_words({"--session", "a b=c"}, {"sh", "-c", "sh -c 'echo \"$INSTANCE_GUARD_SESSION\"'"}));
  CHECK(tool.read_line() == "a b=c");
  CHECK(code_of(tool) == 0);
}

TEST_CASE("a signal that was ignored at the start stays ignored, by the tool and the command") {
  const scene s;
  const auto ignore_hup = [] { return ::signal(SIGHUP, SIG_IGN) != SIG_ERR; };
  auto tool = s.start(run_words({}, s.words({"sleep"})), {.before_exec = ignore_hup});
  REQUIRE(tool.read_until("ready"));
  tool.signal(SIGHUP);
  auto shown = s.start(run_words({}, {"grep", "SigIgn", "/proc/self/status"}), {.before_exec = ignore_hup});
  auto plain = s.start({"grep", "SigIgn", "/proc/self/status"}, {.before_exec = ignore_hup});
  CHECK(shown.read_all() == plain.read_all());
  CHECK_FALSE(tool.ended());
  tool.signal(SIGTERM);
  CHECK(code_of(tool) == 128 + SIGTERM);
}
