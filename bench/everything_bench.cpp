// Starting a program where a warden is above the owner (reach::everything): the owner does it itself.
// Against posix_spawn, in one run:
//   bench_everything_bench --benchmark_repetitions=10 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <instance_guard/single_instance.hpp>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "measure_starts.hpp"

namespace {

using namespace instance_guard;

char program[] = "/bin/true";
char* arguments[] = {program, nullptr};
single_instance* guard = nullptr;

void everything_spawn(benchmark::State& state, bool until_exit) {
  measure_starts(
      state, until_exit, [] { return guard->spawn({program}); }, [](child& c) { c.wait(); });
}

void posix_spawn(benchmark::State& state, bool until_exit) {
  const auto start = [] {
    pid_t pid = -1;
    if (::posix_spawn(&pid, program, nullptr, nullptr, arguments, environ) != 0) std::abort();
    return pid;
  };
  measure_starts(state, until_exit, start, [](pid_t pid) {
    if (::waitpid(pid, nullptr, 0) != pid) std::abort();
  });
}

}  // namespace

BENCHMARK_CAPTURE(posix_spawn, call, false)->UseRealTime();
BENCHMARK_CAPTURE(everything_spawn, call, false)->UseRealTime();
BENCHMARK_CAPTURE(posix_spawn, until_exit, true)->UseRealTime();
BENCHMARK_CAPTURE(everything_spawn, until_exit, true)->UseRealTime();

int main(int argc, char** argv) {
  const std::string name = "bench-everything-" + std::to_string(::getpid());
  single_instance held = single_instance::acquire_or_exit(name, {.ends = reach::everything});
  guard = &held;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
