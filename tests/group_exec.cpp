// An owner that executes another program: the group ends, what that program starts is none of it.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/single_instance.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;
using support::teller;

TEST_CASE("the children of the program that the owner has become are left alone") {
  const scene s;
  const std::string name = support::unique_name("exec");
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  forked owner([&](teller test) {
    single_instance_options options;
    options.children.grace = 300ms;
    options.lock.directory = s / "locks";
    single_instance guard = single_instance::acquire(name, options);
    child c = guard.spawn(s.words({"ignore", "sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(c.out()) == 0) return 1;
    test.say("ready");
    // Each of its children is there for a moment; one that was ended by a signal is told.
    ::execl("/bin/sh", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 || exit 9; done; exit 25", nullptr);
    return 1;
  });
  CHECK(owner.line() == "ready");
  CHECK(owner.wait(60s).code() == 25);
  CHECK(support::wait_until([&] { return s.empty(); }));
}
