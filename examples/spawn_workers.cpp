// Workers of a group: each with its own environment, directory and output, all ended as one.
#include <instance_guard/process_group.hpp>

#include <cstdio>
#include <string>
#include <vector>

using namespace instance_guard;
using namespace std::chrono_literals;

int main() {
  process_group workers({.grace = 2s});

  std::vector<child> children;
  for (const std::string role : {"feed", "orders", "risk"})
    children.push_back(workers.spawn({"sh", "-c", "echo \"$ROLE works in $PWD\""},
                                     {.environment = {"ROLE=" + role}, .working_directory = "/"}));
  for (child& each : children) std::printf("pid %d: %s\n", static_cast<int>(each.id().pid), each.wait().str().c_str());

  // One that never ends by itself, and starts another in a session of its own.
  workers.spawn({"sh", "-c", "setsid sleep 60 & sleep 60"}, {.out = stdio::null()});

  const termination_report report = workers.terminate();
  std::printf("the group is %s\n", report.str().c_str());
  return report.proven_empty ? 0 : 1;
}
