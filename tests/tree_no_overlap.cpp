// A killed owner's children against the next owner: one after the other, never beside it.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <unistd.h>

#include "support/owner.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// The last stamp of a witness; 0 if there is none.
std::int64_t last_stamp(const std::string& file) {
  const std::string bytes = support::detail::contents(file);
  std::int64_t stamp = 0;
  if (bytes.size() == sizeof stamp) std::memcpy(&stamp, bytes.data(), sizeof stamp);
  return stamp;
}

std::int64_t acquired_at(const std::string& line) {
  const std::size_t at = line.find(" at=");
  return at == line.npos ? 0 : std::strtoll(line.c_str() + at + 4, nullptr, 10);
}

}  // namespace

TEST_CASE("a killed instance's child never writes after the next one has the name") {
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("witness");
  const std::string file = s / "stamp";
  for (int round = 0; round < rounds(100, 15); ++round) {
    CAPTURE(round);
    const std::string kind = round % 2 == 0 ? "setsid ignore" : "daemon";
    const std::string child = "child=" + kind + " witness=" + file;
    owner o(s, {.arguments = {"grace=20", "wait=20000", "guard=" + name, child, "pause="}, .ready = 1});
    REQUIRE(o.complete());
    const std::int64_t before = last_stamp(file);
    REQUIRE(before > 0);
    CHECK(wait_until([&] { return last_stamp(file) > before; }));
    o.process().signal(SIGKILL);
    owner next(s, {.arguments = {"wait=20000", "guard=" + name, "wait-line=", "end=return"}});
    const auto line = next.process().read_until("acquired");
    REQUIRE(line);
    CHECK(line->find("recovered=1") != line->npos);
    next.go_on();
    CHECK(next.process().wait()->code() == 21);
    CHECK(last_stamp(file) < acquired_at(*line));
  }
}

TEST_CASE("killed at any moment of its start, an owner leaves nothing and the name is free") {
  std::minstd_rand random(static_cast<unsigned>(::getpid()));
  scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("starting");
  // The grace, and what a warden is given beyond it.
  const std::string cleanup = "cleanup-wait=" + std::to_string(20 + 10'000);
  for (int round = 0; round < rounds(500, 40); ++round) {
    CAPTURE(round);
    owner o(s, {.arguments = {"grace=20", "wait=20000", "guard=" + name, "child=setsid sleep",
                              "child=daemon ignore sleep", "child=sleep", "pause="}});
    // A start takes some 10 ms: most of these moments are within it.
    ::usleep(static_cast<useconds_t>(random() % 15'000));
    o.process().signal(SIGKILL);
    CHECK(o.process().wait());
    // It does not wait for anybody who lives, and for what a dead one left no longer than it may take.
    owner next(s, {.arguments = {cleanup, "guard=" + name, "wait-line=", "end=return"}});
    REQUIRE(next.process().read_until("acquired"));
    for (const found_process& each : helpers_of(s)) FAIL_CHECK("overlaps: " << each.what);
    next.go_on();
    CHECK(next.process().wait()->code() == 21);
  }
  CHECK(wait_until([&] { return s.empty(); }));
}
