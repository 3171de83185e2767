// The warden itself is killed or stopped, with or without its owner.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <vector>

#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// Every kind but those that documented limits let escape when both are dead: a process that
/// executed with a cleared environment, and, for an ordinary user, one that hides it.
std::vector<std::string> children(bool as_nobody) {
  const bool ordinary = as_nobody || !is_root();
  std::vector<std::string> list = stubborn_children();
  std::erase_if(list, [&](const std::string& words) {
    return words.find("cleared") != words.npos || (ordinary && words.find("undumpable") != words.npos);
  });
  list.push_back("cleared sleep");  // with its death signal, which an exec keeps
  return list;
}

struct setting {
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string name = unique_name("both");
  bool as_nobody = false;

  owner start(const std::string& then) {
    owner_options options{.as_nobody = as_nobody};
    options.arguments = {"grace=150", "guard=" + name, "warden="};
    for (const std::string& each : children(as_nobody)) {
      options.arguments.push_back("child=" + each);
      ++options.ready;
    }
    options.arguments.push_back("wait-line=");
    options.arguments.push_back(then);
    owner result(s, options);
    REQUIRE(result.complete());
    REQUIRE(result.warden() > 1);
    return result;
  }
  void check_nothing_left() {
    CHECK(next_instance_is_alone(s, name, as_nobody));
    CHECK(wait_until([&] { return s.empty(); }));
  }
};

}  // namespace

TEST_CASE("owner and warden killed at once, in either order: the next start is alone") {
  for (const bool warden_first : {false, true}) {
    CAPTURE(warden_first);
    setting t;
    owner o = t.start("pause=");
    const pid_t warden = o.warden();
    if (warden_first) ::kill(warden, SIGKILL);
    o.process().signal(SIGKILL);
    if (!warden_first) ::kill(warden, SIGKILL);
    t.check_nothing_left();
  }
}

TEST_CASE("the same for an ordinary user") {
  if (!is_root()) return;
  setting t{.as_nobody = true};
  owner o = t.start("pause=");
  o.process().signal(SIGKILL);
  ::kill(o.warden(), SIGKILL);
  t.check_nothing_left();
}

TEST_CASE("the warden killed, then the owner ends as it likes: the next start is alone") {
  for (const std::string end : {"return", "term", "kill"}) {
    CAPTURE(end);
    setting t;
    owner o = t.start("end=" + end);
    ::kill(o.warden(), SIGKILL);
    o.go_on();
    CHECK(o.process().wait());
    t.check_nothing_left();
  }
}

TEST_CASE("the warden stopped, then the owner killed: the next start is alone") {
  setting t;
  owner o = t.start("pause=");
  ::kill(o.warden(), SIGSTOP);
  o.process().signal(SIGKILL);
  t.check_nothing_left();
}

TEST_CASE("a living owner is told of a stopped and of a dead warden") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  owner_options options{.arguments = {"guard=" + unique_name("verify"), "warden=", "child=sleep"}, .ready = 1};
  for (int i = 0; i < 4; ++i) options.arguments.insert(options.arguments.end(), {"wait-line=", "verify="});
  owner o(s, options);
  REQUIRE(o.complete());
  program& p = o.process();
  o.go_on();
  CHECK(p.read_until("verify=") == "verify=fine");
  const pid_t warden = o.warden();
  const auto in_state = [&](char letter) {
    return wait_until([&] { return support::detail::state_of("/proc/" + std::to_string(warden)) == letter; });
  };
  ::kill(warden, SIGSTOP);
  REQUIRE(in_state('T'));
  o.go_on();
  CHECK(p.read_until("verify=") == "verify=the warden is dead or stopped");
  ::kill(warden, SIGCONT);
  REQUIRE(in_state('S'));
  o.go_on();
  CHECK(p.read_until("verify=") == "verify=fine");
  ::kill(warden, SIGKILL);
  CHECK(wait_until([&] { return !alive(warden); }));
  o.go_on();
  CHECK(p.read_until("verify=") == "verify=the warden is dead or stopped");
  CHECK(p.wait()->code() == 21);
}
