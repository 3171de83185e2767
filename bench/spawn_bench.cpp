// Starting a program: through a group, with posix_spawn, and with fork and execve; in a small
// process and in one that has 2 GiB resident. The calls alone, and until the end has been seen.
//
// In one run, interleaved by Google Benchmark's repetitions, so that they can be compared:
//   bench_spawn_bench --benchmark_repetitions=10 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <instance_guard/process_group.hpp>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <string>

#include "measure_starts.hpp"

namespace {

using namespace instance_guard;

char program[] = "/bin/true";
char* arguments[] = {program, nullptr};

void reap(pid_t pid) {
  if (pid <= 0 || ::waitpid(pid, nullptr, 0) != pid) std::abort();
}

pid_t with_posix_spawn() {
  pid_t pid = -1;
  if (::posix_spawn(&pid, program, nullptr, nullptr, arguments, environ) != 0) std::abort();
  return pid;
}

pid_t with_fork() {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::execv(program, arguments);
    ::_exit(127);
  }
  return pid;
}

/// Memory that is there: each page was written to.
class resident {
 public:
  explicit resident(std::size_t size) : size_(size) {
    if (size == 0) return;
    data_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) std::abort();
    ::madvise(data_, size, MADV_NOHUGEPAGE);  // as a heap that has grown
    for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(data_)[i] = 1;
  }
  ~resident() {
    if (size_ != 0) ::munmap(data_, size_);
  }
  resident(const resident&) = delete;
  resident& operator=(const resident&) = delete;

 private:
  std::size_t size_;
  void* data_ = nullptr;
};

/// The group is there before the program has grown, as acquire() does it.
template <class Start, class Wait>
void measure(benchmark::State& state, bool until_exit, Start start, Wait wait) {
  const resident memory(static_cast<std::size_t>(state.range(0)) << 20);
  measure_starts(state, until_exit, start, wait);
}

void group_spawn(benchmark::State& state, bool until_exit) {
  process_group group;
  measure(
      state, until_exit, [&] { return group.spawn({program}); }, [](child& c) { c.wait(); });
}
void posix_spawn(benchmark::State& state, bool until_exit) { measure(state, until_exit, with_posix_spawn, reap); }
void fork_exec(benchmark::State& state, bool until_exit) { measure(state, until_exit, with_fork, reap); }

BENCHMARK_CAPTURE(posix_spawn, call, false)->Arg(0)->Arg(2048)->ArgName("MiB")->UseRealTime();
BENCHMARK_CAPTURE(group_spawn, call, false)->Arg(0)->Arg(2048)->ArgName("MiB")->UseRealTime();
BENCHMARK_CAPTURE(fork_exec, call, false)->Arg(0)->Arg(2048)->ArgName("MiB")->UseRealTime();
BENCHMARK_CAPTURE(posix_spawn, until_exit, true)->Arg(0)->ArgName("MiB")->UseRealTime();
BENCHMARK_CAPTURE(group_spawn, until_exit, true)->Arg(0)->ArgName("MiB")->UseRealTime();
BENCHMARK_CAPTURE(fork_exec, until_exit, true)->Arg(0)->ArgName("MiB")->UseRealTime();

/// A group's warden: started, and ended again.
void start_group(benchmark::State& state) {
  for (auto unused : state) {
    (void)unused;
    process_group group;
    state.PauseTiming();
    group = process_group(nullptr);
    state.ResumeTiming();
  }
}
BENCHMARK(start_group)->UseRealTime();

void start_nested_group(benchmark::State& state) {
  process_group outer;
  for (auto unused : state) {
    (void)unused;
    process_group group = outer.nested();
    state.PauseTiming();
    group = process_group(nullptr);
    state.ResumeTiming();
  }
}
BENCHMARK(start_nested_group)->UseRealTime();

/// Not a time: what the warden has to itself, in KiB, after some work.
void warden_memory(benchmark::State& state) {
  process_group group;
  for (int i = 0; i < 100; ++i) group.spawn({program}).wait();
  double kib = 0;
  for (auto unused : state) {
    (void)unused;
    std::ifstream file("/proc/" + std::to_string(group.warden().pid) + "/smaps_rollup");
    kib = 0;
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("Private_")) kib += std::atof(line.c_str() + line.find(':') + 1);
  }
  state.counters["private_KiB"] = kib;
}
BENCHMARK(warden_memory)->Iterations(1);

}  // namespace
