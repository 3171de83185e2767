// instance-guard audit, as people, timers and monitors start it.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/sanitizer.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/tool_result.hpp"

using namespace support;

namespace {

tool_result audit(const scene& s, std::vector<std::string> more, start_options options = {}) {
  more.insert(more.begin(), "audit");
  return run_tool(s, std::move(more), std::move(options));
}

/// A check that also works in a forked part; false is told with what was there.
bool expect(bool holds, const std::string& what, const tool_result& got) {
  if (!holds) std::fprintf(stderr, "not so: %s\nexit %d\n%s\n", what.c_str(), got.code, got.out.c_str());
  return holds;
}

/// An orphan, whoever looks: its session has ended. Its pid.
pid_t start_orphan(const scene& s, std::vector<std::string> words = {"daemon", "sleep"},
                   const std::string& session = "gone") {
  program parent = s.start(s.words(std::move(words)), {.environment = {"INSTANCE_GUARD_SESSION=" + session}});
  const auto line = parent.read_until("ready pid=");
  parent.wait();
  return line ? static_cast<pid_t>(std::stol(line->substr(10))) : 0;
}

/// Runs the part where only its own processes are seen; skipped where there is no such place.
void alone(const std::function<int(const scene&)>& part) {
  const scene s;
  const int code = in_own_pid_namespace([&] { return part(s); });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
  else CHECK(code == 0);
}

const std::vector<std::string> at_once = {"--min-age", "0", "--zombie-wait", "50ms"};

std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.end(), at_once.begin(), at_once.end());
  return more;
}

}  // namespace

TEST_CASE("wrong arguments are one line, and 125") {
  const scene s;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"--kind", "ghost"},
                                                                                     {"--service", "x"},
                                                                                     {"--service", "x="},
                                                                                     {"--service", "=x"},
                                                                                     {"--service", "x=(("},
                                                                                     {"--ignore", "[["},
                                                                                     {"--json", "--nagios"},
                                                                                     {"--json", "--discord"},
                                                                                     {"--prometheus", "ghosts.txt"},
                                                                                     {"--prometheus", ".prom"},
                                                                                     {"--webhook-file", "x"},
                                                                                     {"--only-ghosts"},
                                                                                     {"--older-than", "soon"},
                                                                                     {"stray"},
                                                                                     {"--", "true"}}) {
    const tool_result got = audit(s, words, {.merge_err = true});
    CAPTURE(words.front());
    CAPTURE(got.out);
    CHECK(got.code == 125);
    CHECK(lines_of(got.out).size() == 1);
  }
}

TEST_CASE("a host without ghosts: 0") {
  alone([](const scene& s) {
    const tool_result got = audit(s, with({}));
    return expect(got.code == 0 && got.says("no ghosts among ") && got.says("clean.   exit 0"), "clean", got) ? 0 : 1;
  });
}

TEST_CASE("an orphan: 1, with its pid, why, and what to type") {
  alone([](const scene& s) {
    const pid_t pid = start_orphan(s);
    const tool_result got = audit(s, with({}));
    if (!expect(got.code == 1, "a warning is 1", got)) return 1;
    if (!expect(got.says("WARNING  orphan") && got.says(std::to_string(pid)) && got.says("why   ") &&
                    got.says("do    instance-guard reap " + std::to_string(pid)),
                "who, why, what to type", got))
      return 2;
    if (!expect(fits(got.out), "80 columns", got)) return 3;
    const auto document = nlohmann::json::parse(audit(s, with({"--json"})).out);
    const auto& ghosts = document["ghosts"];
    if (ghosts.size() != 1 || ghosts[0]["kind"] != "orphan") return 4;
    if (ghosts[0]["processes"][0]["pid"] != pid || document["exit_code"] != 1) return 5;
    // Each of these leaves it out.
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{"--kind", "zombie", "--kind", "stale", "--min-age", "0"},
                                               {"--ignore", "daemon sl.ep$", "--min-age", "0"},
                                               {"--min-age", "1h"}})
      if (const tool_result without = audit(s, words); !expect(without.code == 0, words.front(), without)) return 6;
    return 0;
  });
}

TEST_CASE("a zombie is one that stays; the second look is told on a terminal only") {
  alone([](const scene& s) {
    const pid_t zombie = ::fork();
    if (zombie == 0) ::_exit(0);
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT);
    const tool_result got = audit(s, with({}), {.merge_err = true});
    if (!expect(got.says("zombie") && got.says(std::to_string(::getpid())), "told, with its parent", got)) return 1;
    if (!expect(!got.says("looking again") && !got.says("\r"), "no progress line in a file", got)) return 2;
    {
      terminal front({INSTANCE_GUARD_TOOL, "audit", "--zombie-wait", "300ms"}, {s.mark()});
      if (!front.see("looking again in ") || !front.see("exit ")) return 3;
    }
    {
      // Where the line would wrap, its end is left out.
      terminal front = terminal::with_shell({s.mark()});
      front.resize(50, 24);
      front.type(std::string(INSTANCE_GUARD_TOOL) + " audit --zombie-wait 300ms\n");
      if (!front.see("\rlooking again in ") || !front.see("\x1b[K")) return 5;
      if (front.skipped().find("which") != std::string::npos || !front.see("exit ")) return 6;
    }
    ::waitpid(zombie, nullptr, 0);
    const tool_result after = audit(s, with({}));
    return expect(after.code == 0, "reaped, it is none", after) ? 0 : 4;
  });
}

TEST_CASE("a service that should run, and does not, is a warning") {
  alone([](const scene& s) {
    const tool_result none = audit(s, with({"--service", "shiva=no_such_thing"}));
    if (!expect(none.code == 1 && none.says("shiva"), "none runs", none)) return 1;
    program bot = s.start(s.words({"say=shiva-bot", "sleep"}));
    bot.read_until("ready");
    const tool_result one = audit(s, with({"--service", "shiva=say=shiva-b.t", "--json"}));
    const auto document = nlohmann::json::parse(one.out);
    if (!expect(document["services"][0]["found"] == 1, "one runs", one)) return 2;
    const tool_result two = audit(s, with({"--service", "shiva=say=shiva-b.t=2"}));
    return expect(two.code == 1, "one of two", two) ? 0 : 3;
  });
}

TEST_CASE("processes that try to break the output: it stays text, and JSON stays JSON") {
  alone([](const scene& s) {
    const std::vector<std::string> words_to_say = {"say=\x1b[2J\x1b]0;x\x07", "say=\n\"},{", "say=\xff\xfe`@everyone",
                                                   "say=" + std::string(100'000, 'w')};
    for (const std::string& text : words_to_say) start_orphan(s, {text, "daemon", "sleep"});
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{}, {"--verbose"}, {"--nagios"}, {"--discord"}}) {
      const tool_result got = audit(s, with(words));
      const bool harmless = std::all_of(got.out.begin(), got.out.end(), [](char c) {
        return c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
      });
      if (!expect(harmless && got.code == 1, "harmless", got)) return 1;
      if (words.empty() && !expect(fits(got.out), "80 columns", got)) return 2;
    }
    const tool_result got = audit(s, with({"--json"}));
    std::size_t told = 0;
    const auto document = nlohmann::json::parse(got.out);
    for (const auto& each : document["ghosts"]) told += each["processes"].size();
    return expect(told == 4, "all of them", got) ? 0 : 3;
  });
}

TEST_CASE("whoever can't see everybody does not say that all is well: 3") {
  if (!is_root()) {
    MESSAGE("skipped: needs root to become somebody else");
    return;
  }
  alone([](const scene& s) {
    program roots = s.start(s.words({"sleep"}));
    roots.read_until("ready");
    const start_options nobodys = {.before_exec = [] { return become(nobody); }};
    const tool_result got = audit(s, with({"--all-users"}), nobodys);
    if (!expect(got.code == 3 && got.says("not seen: "), "a partial view", got)) return 1;
    const tool_result own = audit(s, with({}), nobodys);
    return expect(own.code == 0 && own.says("not seen: ") && own.says("--all-users"), "own ones", own) ? 0 : 2;
  });
}

TEST_CASE("with hidepid nothing false is said: those that can't be read are counted, those not listed are told") {
  if (!is_root()) {
    MESSAGE("skipped: needs root to mount /proc and to become somebody else");
    return;
  }
  alone([](const scene& s) {
    program roots = s.start(s.words({"sleep"}));
    roots.read_until("ready");
    const start_options nobodys = {.before_exec = [] { return become(nobody); }};
    program own = s.start(s.words({"sleep"}), nobodys);
    own.read_until("ready");
    const std::vector<std::string> modes = {"0", "1", "2"};
    for (const std::string& mode : modes) {
      if (::mount("proc", "/proc", "proc", 0, ("hidepid=" + mode).c_str()) != 0) return 1;
      for (const bool everybody : {false, true}) {
        std::vector<std::string> words = with({"--json"});
        if (everybody) words.push_back("--all-users");
        const tool_result got = audit(s, words, nobodys);
        const std::string what = "hidepid=" + mode + (everybody ? ", everybody" : "");
        if (!expect(got.code == (everybody ? 3 : 0), what, got)) return 2;
        const auto document = nlohmann::json::parse(got.out);
        std::string blind;
        for (const auto& each : document["blind_spots"]) blind += each["what"].get<std::string>() + " ";
        // Process 1, the test and its child are root's. One that is not even listed can't be counted.
        const bool asked = everybody && mode == "0";
        if (!expect(document["unseen"] == (mode == "2" || asked ? 0 : 3), what + ": unseen", got)) return 3;
        if (!expect(document["processes"] == (asked ? 5 : 2), what + ": looked at", got)) return 4;
        const std::string expected = mode == "2" ? "hidden " : asked ? "denied " : "other_users ";
        if (!expect(blind == expected, what + ": " + expected, got)) return 5;
        if (!expect(document["ghosts"].empty(), what + ": no ghosts", got)) return 6;
      }
    }
    return 0;
  });
}

TEST_CASE("where /proc is not mounted that is said, and what mounts it") {
  if (support::needs_proc) {
    MESSAGE("skipped: AddressSanitizer needs /proc");
    return;
  }
  alone([](const scene& s) {
    if (::mount("none", "/proc", "tmpfs", 0, nullptr) != 0) return no_namespace;
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"audit"}, {"reap", "7"}}) {
      const tool_result got = run_tool(s, words, {.merge_err = true});
      if (!expect(got.code == 125 && got.says("/proc is not mounted here"), "the reason", got)) return 1;
      if (!expect(got.says("mount -t proc proc /proc") && !got.says("missing"), "the cure", got)) return 2;
    }
    const tool_result got = audit(s, with({"--nagios"}));
    return expect(got.code == 3 && got.says("GHOSTS UNKNOWN - /proc is not mounted"), "UNKNOWN", got) ? 0 : 3;
  });
}

TEST_CASE("Prometheus: written beside another output, or alone") {
  alone([](const scene& s) {
    const std::string path = s / "ghosts.prom";
    const tool_result silent = audit(s, with({"--prometheus", path}));
    if (!expect(silent.code == 0 && silent.out.empty(), "says nothing", silent)) return 1;
    start_orphan(s);
    const tool_result both = audit(s, with({"--prometheus", path, "--nagios"}));
    if (!expect(both.code == 1 && both.says("GHOSTS WARNING - 1 orphan"), "both", both)) return 2;
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    const bool told = text.str().find("instance_guard_ghost_processes{kind=\"orphan\",severity=\"warning\"} 1\n") !=
                      std::string::npos;
    const tool_result fault = audit(s, with({"--nagios", "--prometheus", s / "none/x.prom"}));
    if (!expect(fault.code == 3 && fault.says("GHOSTS UNKNOWN - "), "a fault is UNKNOWN", fault)) return 3;
    return told ? 0 : 4;
  });
}

TEST_CASE("the names' gauges are among them") {
  const scene s;
  const std::string name = "audit-gauge-" + std::to_string(::getpid());
  program holder = s.start({INSTANCE_GUARD_TOOL, "run", "--name", name, "--", s.helper(), "sleep"});
  REQUIRE(holder.read_until("ready"));
  const std::string path = s / "locks.prom";
  audit(s, {"--kind", "orphan", "--prometheus", path});
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  holder.signal(SIGTERM);
  holder.wait();
  const std::string labels = "{name=\"" + name + "\",scope=\"user\"} ";
  CHECK(text.str().find("instance_guard_lock_held" + labels + "1\n") != std::string::npos);
  CHECK(text.str().find("instance_guard_lock_acquired_timestamp_seconds" + labels) != std::string::npos);
  CHECK(text.str().find("instance_guard_lock_replaced_code" + labels + "0\n") != std::string::npos);
}

TEST_CASE("--older-than is the threshold of what runs for long, and is a day unless said") {
  alone([](const scene& s) {
    // Below a shell: what another old program has started is told with that one.
    terminal front = terminal::with_shell({s.mark()});
    front.type(s.helper() + " sleep\n");
    if (!front.see("ready ")) return 1;
    const pid_t bot = front.front();
    const auto noted = [&](const std::vector<std::string>& words) {
      const tool_result got = audit(s, with(words));
      if (got.code != 0) return false;
      const auto document = nlohmann::json::parse(got.out);
      for (const auto& note : document["notes"])
        if (note["kind"] == "long_running" && note["processes"][0]["pid"] == bot) return true;
      return false;
    };
    if (!wait_until([&] { return noted({"--json", "--older-than", "1s"}); })) return 2;
    if (noted({"--json"})) return 3;
    if (noted({"--json", "--older-than", "1h"})) return 4;
    const tool_result words = audit(s, with({"--older-than", "1s"}));
    return expect(words.says("NOTE     long-running: ") && fits(words.out), "in words", words) ? 0 : 5;
  });
}

TEST_CASE("at 80 columns nothing wraps; a narrower terminal gets the same lines") {
  alone([](const scene& s) {
    start_orphan(s, {"say=" + std::string(300, 'w'), "daemon", "sleep"});
    start_orphan(s, {"say=\xe2\x98\x83 " + std::string(90, 'x'), "daemon", "sleep"}, std::string(120, 's'));
    program bot = s.start(s.words({"sleep"}));
    bot.read_until("ready");
    for (const unsigned short width : std::initializer_list<unsigned short>{80, 81, 60, 20, 1}) {
      terminal front = terminal::with_shell({s.mark(), "NO_COLOR=1"});
      front.resize(50, width);
      // The shell's own line editing wraps what it echoes: only what comes behind the mark is the tool's.
      front.type("stty -echo; clear() { :; }; printf '<%s\\n' '<'\n");
      if (!front.see("<<")) return 1;
      front.type(std::string(INSTANCE_GUARD_TOOL) + " audit --min-age 0 --ignore audit --ignore bash\n");
      if (!front.see("exit 1\r\n")) return 2;
      std::string text = front.skipped();
      text.erase(std::remove(text.begin(), text.end(), '\r'), text.end());
      for (const std::string& line : lines_of(text))
        if (columns_of(line) > 80) {
          std::fprintf(stderr, "at %d: %s\n", width, line.c_str());
          return 3;
        }
      // Nothing moves the cursor: whatever wraps, wraps as text.
      if (text.find('\x1b') != std::string::npos || text.find('\b') != std::string::npos) return 4;
      if (text.find("WARNING  orphan") == std::string::npos || text.find("do    ") == std::string::npos) return 5;
    }
    return 0;
  });
}

TEST_CASE("in a wide terminal it is one table, in a narrow one it is 80 columns") {
  alone([](const scene& s) {
    start_orphan(s);
    for (const bool wide : {true, false}) {
      terminal front = terminal::with_shell({s.mark()});
      front.resize(50, wide ? 130 : 100);
      front.type(std::string(INSTANCE_GUARD_TOOL) + " audit --min-age 0\n");
      if (!front.see("exit 1")) return 1;
      if ((front.skipped().find("SEVERITY  KIND") != std::string::npos) != wide) return 2;
      // Colour on the first word.
      if (front.skipped().find("\x1b[33mWARNING \x1b[0m") == std::string::npos) return 3;
    }
    return 0;
  });
}
