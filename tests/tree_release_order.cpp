// On the way out the name goes last: after the last child, and the file with it.
#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

struct setting {
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string name = unique_name("order");
  std::string directory = make_directory(s / "locks");
  std::string elsewhere = make_directory(s / "elsewhere");
  std::string file = directory + "/" + name + ".lock";

  static std::string make_directory(const std::string& path) {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    return path;
  }
  /// A child that ignores SIGTERM for the whole grace.
  owner start(const std::string& end) {
    owner result(s, {.arguments = {"directory=" + directory, "grace=600", "guard=" + name,
                                   "child=setsid ignore sleep", "child=daemon ignore sleep",
                                   "wait-line=", "end=" + end},
                     .ready = 2});
    REQUIRE(result.complete());
    return result;
  }
  /// A start that is refused, in some 100 ms, if the name is not free. In another directory it is
  /// the socket alone that refuses.
  bool gets_in(const std::string& where) {
    owner contender(s,
                    {.arguments = {"directory=" + where, "cleanup-wait=0", "try-guard=" + name}});
    return contender.process().wait()->code() == 0;
  }
};

}  // namespace

TEST_CASE("while children of an ending owner live nobody gets in, by file or by socket") {
  for (const std::string end : {"return", "term", "exit", "kill"}) {
    CAPTURE(end);
    setting t;
    owner o = t.start(end);
    o.go_on();
    int refused = 0;
    for (bool living = true; living;) {
      const bool by_file = t.gets_in(t.directory);
      const bool by_socket = !by_file && t.gets_in(t.elsewhere);
      // Looked at after the attempts: whoever lives now lived then.
      living = !helpers_of(t.s).empty();
      if (!living) break;
      CHECK_FALSE(by_file);
      CHECK_FALSE(by_socket);
      ++refused;
    }
    CHECK(refused >= 2);
    CHECK(o.process().wait());
    CHECK(next_instance_is_alone(t.s, t.name));
  }
}

TEST_CASE("after an ordered end the file is gone, after another it tells the next start") {
  for (const std::string end : {"return", "exit", "term", "_exit", "kill", "abort"}) {
    CAPTURE(end);
    const bool in_order = end == "return" || end == "exit" || end == "term";
    setting t;
    owner o = t.start(end);
    CHECK(std::filesystem::exists(t.file));
    o.go_on();
    CHECK(o.process().wait());
    CHECK(wait_until([&] { return t.s.empty(); }));
    CHECK(std::filesystem::exists(t.file) == !in_order);
    owner next(t.s, {.arguments = {"directory=" + t.directory, "guard=" + t.name, "end=return"}});
    const auto line = next.process().read_until("acquired");
    REQUIRE(line);
    CHECK((line->find("recovered=1") != line->npos) == !in_order);
    CHECK(next.process().wait()->code() == 21);
    CHECK(wait_until([&] { return !std::filesystem::exists(t.file); }));
  }
}
