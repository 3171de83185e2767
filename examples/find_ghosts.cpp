// Find what should not be running: here a child that has ended, and that nobody has asked how.
//
// A zombie is one that is still there at the second look. The other kinds (orphans, duplicates,
// stale code) are found at the first.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <instance_guard/ghost_census.hpp>
#include <thread>

using namespace instance_guard;
using namespace std::chrono_literals;

int main() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t ended = {};
  waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);  // ended, and not reaped

  const process_table before = process_table::read();
  std::this_thread::sleep_for(100ms);
  const process_table now = process_table::read(census_read_options());

  bool found = false;
  const census result = take_census(now, &before);
  for (const ghost& each : result.ghosts) {
    std::printf("%s: %s\n  why  %s\n  do   %s\n", to_string(each.level).data(), each.headline.c_str(), each.why.c_str(),
                each.remedy.c_str());
    for (const census_entry& one : each.processes)
      found = found || (each.kind == ghost_kind::zombie && one.process.id.pid == child);
  }
  for (const blind_spot& each : result.blind_spots) std::printf("not seen: %s\n", each.text.c_str());
  waitpid(child, nullptr, 0);
  return found ? 0 : 1;
}
