// Zombies in the ways that ps(1) shows them, and what only looks like one.
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#include "stage.hpp"

namespace census_host {
namespace {

void* traced(void*) {
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  for (;;) ::pause();
}

/// A parent that never asks how its child has ended.
void start_careless(stage& s, const std::string& label, const std::function<void()>& child) {
  s.start_session([&] {
    s.start([&] {
      child();
      stage::report(label, "zombie");
    });
    const std::string name = "collector-" + label.substr(label.find('.') + 1);
    s.become({.label = label + ": its parent", .arguments = {s.program("opt/" + name)}});
  });
}

}  // namespace

void stage_zombies(stage& s) {
  start_careless(s, "zombie.plain", [] {});
  start_careless(s, "zombie.session", [] { ::setsid(); });
  start_careless(s, "zombie.nice", [] { ::setpriority(PRIO_PROCESS, 0, 15); });
  // Its second thread has ended too, and its tracer has not asked either: "Zl".
  start_careless(s, "zombie.threads", [] {
    pthread_t other;
    if (::pthread_create(&other, nullptr, traced, nullptr) != 0) stage::fail("thread");
    const std::string task = "/proc/self/task";
    for (bool known = false; !known; ::usleep(1000))
      for (const auto& each : fs::directory_iterator(task)) {
        std::ifstream status(each.path() / "status");
        for (std::string line; std::getline(status, line);)
          known = known || (line.starts_with("TracerPid:") && line.find_first_of("123456789") != line.npos);
      }
  });
  // "Zl" as well, but its other thread works on.
  s.start_session([&] {
    s.start([&] {
      s.become(
          {.label = "decoy.headless", .arguments = {s.program("opt/headless")}, .environment = {"CENSUS_HEADLESS=1"}});
    });
    s.become({.label = "decoy.headless: its parent", .arguments = {s.program("opt/collector")}});
  });
}

}  // namespace census_host
