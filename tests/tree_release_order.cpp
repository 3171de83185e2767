// On the way out the name goes last: after the last child, and the file with it.
#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "support/one_lock_alone.hpp"
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
  owner start(const std::string& end, const std::string& grace = "600") {
    owner result(
        s, {.arguments = {"directory=" + directory, "grace=" + grace, "guard=" + name, "child=setsid ignore sleep",
                          "child=daemon ignore sleep", "wait-line=", "end=" + end},
            .ready = 2});
    REQUIRE(result.complete());
    return result;
  }
  /// A start that is refused, in some 100 ms, if the name is not free.
  bool gets_in(
      std::vector<std::string> words, const std::function<bool()>& prepare = [] { return true; }) {
    words.insert(words.begin(), "./" + std::filesystem::path(INSTANCE_GUARD_TEST_OWNER).filename().string());
    words.insert(words.end(), {"cleanup-wait=0", "try-guard=" + name});
    const std::string place = s / "";
    program contender = s.start(words, {.before_exec = [&] { return ::chdir(place.c_str()) == 0 && prepare(); }});
    const auto status = contender.wait();
    CHECK(status);
    if (!status) return false;
    CHECK((status->code() == 0 || status->code() == 75));
    return status->code() == 0;
  }
  /// Both locks refuse; in another directory only the socket does.
  bool gets_in() { return gets_in({"directory=" + directory}); }
  bool gets_in_elsewhere() { return gets_in({"directory=" + elsewhere}); }
  /// The socket is out of reach, or every file is.
  bool gets_in_by_file() { return gets_in({"directory=" + directory}, own_network); }
  bool gets_in_by_socket() { return gets_in({}, own_files); }
};

/// Ends an owner whose children live on for its grace, and tries to get in meanwhile. How often that was refused.
int refusals_while_ending(const std::string& end, const std::string& grace, bool by_one_lock) {
  setting t;
  owner o = t.start(end, grace);
  o.go_on();
  int refused = 0;
  for (;;) {
    const bool in = t.gets_in();
    const bool in_elsewhere = !in && t.gets_in_elsewhere();
    const bool in_by_file = by_one_lock && !in && t.gets_in_by_file();
    const bool in_by_socket = by_one_lock && !in && t.gets_in_by_socket();
    // Looked at after the attempts: whoever lives now lived then.
    if (helpers_of(t.s).empty()) break;
    CHECK_FALSE(in);
    CHECK_FALSE(in_elsewhere);
    CHECK_FALSE(in_by_file);
    CHECK_FALSE(in_by_socket);
    ++refused;
  }
  CHECK(o.process().wait());
  if (end != "kill") CHECK(wait_until([&] { return !std::filesystem::exists(t.file); }));
  CHECK(wait_until([&] { return t.gets_in(); }));
  if (by_one_lock) {
    CHECK(wait_until([&] { return t.gets_in_by_file(); }));
    CHECK(wait_until([&] { return t.gets_in_by_socket(); }));
  }
  CHECK(next_instance_is_alone(t.s, t.name));
  return refused;
}

}  // namespace

TEST_CASE("while children of an ending owner live nobody gets in, by file or by socket") {
  const bool by_one_lock = possible("each lock alone", own_network) && possible("each lock alone", own_files);
  for (const std::string end : {"return", "term", "exit", "kill"}) {
    CAPTURE(end);
    // Four starts are tried in that time, more than once; on a machine that is too busy for that once more.
    const bool tried =
        refusals_while_ending(end, "1500", by_one_lock) >= 1 || refusals_while_ending(end, "15000", by_one_lock) >= 1;
    CHECK(tried);
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
