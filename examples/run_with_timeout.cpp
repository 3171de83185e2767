// Run a command, keep what it says, and never wait longer than it deserves.
//
// When run returns, the command is gone with everything it started: also the background process
// that holds its output open, which makes popen and subprocess wait for ever.
#include <instance_guard/process_group.hpp>

#include <cstdio>

using namespace instance_guard;
using namespace std::chrono_literals;

int main() {
  process_group group({.grace = 500ms});

  const run_result sorted = group.run({"sort"}, {.timeout = 10s, .input = "pear\napple\n"});
  std::printf("sort: %s\n%s", sorted.status.str().c_str(), sorted.out.c_str());

  const run_result left = group.run({"sh", "-c", "sleep 60 & echo started"}, {.timeout = 10s});
  std::printf("background: %s, leftovers %s\n", left.status.str().c_str(), left.ended.str().c_str());

  const run_result slow = group.run({"sleep", "60"}, {.timeout = 100ms});
  std::printf("sleep: %s, timed out: %s\n", slow.status.str().c_str(), slow.timed_out ? "yes" : "no");

  return sorted.out == "apple\npear\n" && !left.timed_out && slow.timed_out ? 0 : 1;
}
