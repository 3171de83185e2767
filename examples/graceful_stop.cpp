// Finish the work in hand when asked to stop, then end the children, then free the name.
//
// With `graceful`, a first SIGTERM or Ctrl-C only asks; a second one ends the program at once,
// still with its children and its lock.
#include <instance_guard/single_instance.hpp>

#include <csignal>
#include <cstdio>
#include <unistd.h>

using namespace std::chrono_literals;

int main() {
  auto guard = instance_guard::single_instance::acquire_or_exit(
      "example-graceful", {.lock = {.wait = 5s}, .children = {.grace = 1s}, .signals = {.graceful = true}});
  guard.spawn({"sleep", "60"});

  int ticks = 0;
  while (!guard.wait_for_stop(10ms)) {
    std::printf("tick %d\n", ++ticks);
    if (ticks == 3) ::kill(::getpid(), SIGTERM);  // what a service manager would do
  }

  std::printf("asked to stop after %d ticks: closing positions\n", ticks);
  guard.release();  // or leave it to the destructor
  std::printf("children gone, name free\n");
  return ticks >= 3 ? 0 : 1;
}
