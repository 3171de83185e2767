// reach::everything on a terminal: what the terminal sends arrives at the program once, though its warden, the
// process that was started, is sent it as well.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// The program, with the process that was started as the leader of the terminal's session.
struct on_terminal {
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string file = s / "signals";
  terminal t{{s.path_of(INSTANCE_GUARD_TEST_OWNER), "block-signals=", "grace=100", "reach=everything",
              "guard=" + unique_name("terminal"), "tell-signals=" + file},
             {s.mark()}};
  std::vector<int> expected = {};

  std::vector<int> arrived() const {
    std::vector<int> result;
    const std::string text = support::detail::contents(file);
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != text.npos; at = end + 1)
      result.push_back(std::atoi(text.c_str() + at));
    return result;
  }
  /// `number` is on its way to both. What is sent to the warden alone afterwards, it passes on after anything else.
  void expect_once(int number) {
    expected.push_back(number);
    CHECK(wait_until([&] { return arrived().size() >= expected.size(); }));
    ::kill(t.leader(), SIGUSR2);
    expected.push_back(SIGUSR2);
    CHECK(wait_until([&] { return arrived().size() >= expected.size(); }));
    REQUIRE(arrived() == expected);
  }
};

}  // namespace

TEST_CASE("what is typed on the terminal, and its change of size, arrive once") {
  on_terminal here;
  REQUIRE(here.t.see("telling"));
  for (unsigned short round = 1; round <= 10; ++round) {
    CAPTURE(round);
    here.t.press('C');
    here.expect_once(SIGINT);
    here.t.press('\\');
    here.expect_once(SIGQUIT);
    here.t.resize(round, 80);
    here.expect_once(SIGWINCH);
  }
  ::kill(here.t.leader(), SIGTERM);
  CHECK(wait_until([&] { return here.s.empty(); }));
}

TEST_CASE("when the terminal hangs up, of which the kernel tells the session's leader alone, the program hears of it") {
  on_terminal here;
  REQUIRE(here.t.see("telling"));
  here.t.close();
  here.expect_once(SIGHUP);
  ::kill(here.t.leader(), SIGTERM);
  CHECK(wait_until([&] { return here.s.empty(); }));
}

TEST_CASE("a program and its children end when their terminal hangs up, as they would without a warden") {
  for (const bool stopped : {false, true}) {
    CAPTURE(stopped);
    scene s({INSTANCE_GUARD_TEST_OWNER});
    terminal t({s.path_of(INSTANCE_GUARD_TEST_OWNER), "helper=" + s.helper(), "grace=100", "reach=everything",
                "guard=" + unique_name("terminal"), "child=ignore sleep", "stray.spawn=daemon ignore sleep", "say=up",
                "pause="},
               {s.mark()});
    REQUIRE(t.see("up"));
    if (stopped) {
      for (const found_process& each : s.processes())
        if (each.executable == s.path_of(INSTANCE_GUARD_TEST_OWNER) && each.pid != t.leader())
          ::kill(each.pid, SIGSTOP);
    }
    t.close();
    CHECK(wait_until([&] { return s.empty(); }));
  }
}
