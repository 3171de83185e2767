// One include and one line: this program exists once, and its children die with it.
//
// Start it twice to see the refusal: `./minimal_guard 60 & ./minimal_guard`.
#include <instance_guard/single_instance.hpp>

#include <cstdio>
#include <cstdlib>
#include <unistd.h>

int main(int count, char** arguments) {
  const auto guard = instance_guard::single_instance::acquire_or_exit("example-minimal");

  std::printf("pid %d is the only one\n", static_cast<int>(::getpid()));
  std::fflush(stdout);
  if (count > 1) ::sleep(static_cast<unsigned>(std::atoi(arguments[1])));
}
