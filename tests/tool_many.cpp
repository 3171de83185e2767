// Many tools at once, all killed: nothing is left.
#include <doctest/doctest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <vector>

#include "support/rounds.hpp"
#include "support/scene.hpp"
#include "support/tool.hpp"

using namespace support;

TEST_CASE("tools that are all killed at once leave nothing behind") {
  const scene s;
  const int count = rounds(1'000, 60);
  std::vector<std::unique_ptr<program>> tools;
  for (int i = 0; i < count; ++i)
    tools.push_back(std::make_unique<program>(s.start(run_words({"--grace", "100ms"}, s.words({"setsid", "sleep"})))));
  for (auto& each : tools) REQUIRE(each->read_until("ready"));
  for (auto& each : tools) each->signal(SIGKILL);
  CHECK(wait_until([&] { return s.empty(); }, std::chrono::seconds(10)));
}
