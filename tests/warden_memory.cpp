// What a warden costs.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <instance_guard/process_group.hpp>
#include <string>
#include <vector>

#include "support/has_slept.hpp"
#include "support/wait_until.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

/// KiB that a process has to itself; negative where that can't be read.
long private_memory(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  long sum = -1;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("Private_")) sum = (sum < 0 ? 0 : sum) + std::atol(line.c_str() + line.find(':') + 1);
  return sum;
}

}  // namespace

TEST_CASE("a warden that was started first has at most 1 MiB to itself, also after much work") {
  process_group group;
  CHECK(private_memory(group.warden().pid) <= 1024);
  for (int i = 0; i < 100; ++i) CHECK(group.spawn({"/bin/true", std::string(100'000, 'x')}).wait().success());
  std::vector<child> children;
  for (int i = 0; i < 200; ++i) children.push_back(group.spawn({"/bin/sleep", "100"}));
  CHECK(group.terminate().proven_empty);
  // The program grows, and so must not its warden.
  std::vector<std::string> memory(64, std::string(1 << 20, 'x'));
  process_group late = group.nested();
  CHECK(late.spawn({"/bin/true"}).wait().success());
  CHECK(private_memory(group.warden().pid) <= 1024);
  CHECK(private_memory(late.warden().pid) <= 1024);
  CHECK(memory.size() == 64);
}

TEST_CASE("an idle warden sleeps") {
  process_group group;
  child c = group.spawn({"/bin/sleep", "100"});
  // It may still be about to lie down.
  CHECK(support::wait_until([&] { return support::has_slept(group.warden().pid, 300ms); }));
}
