// One look for strays among N processes of the same user: unrelated programs, and copies of this one.
#include <benchmark/benchmark.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <instance_guard/detail/stray_mark.hpp>
#include <instance_guard/detail/stray_scan.hpp>
#include <memory>
#include <vector>

namespace ig = instance_guard::detail;

namespace {

/// Processes that do nothing; ended with the object.
class crowd {
 public:
  crowd(long size, bool copies) {
    for (long i = 0; i < size; ++i) {
      pid_t pid = copies ? ::fork() : -1;
      if (copies && pid == 0)
        for (;;) ::pause();
      if (!copies) {
        const char* arguments[] = {"sleep", "600", nullptr};
        if (::posix_spawnp(&pid, "sleep", nullptr, nullptr, const_cast<char**>(arguments), environ) != 0) pid = -1;
      }
      if (pid > 0) pids_.push_back(pid);
    }
    ::usleep(100'000);  // until all of them execute what they are to be
  }
  ~crowd() {
    for (const pid_t pid : pids_) ::kill(pid, SIGKILL);  // not reaped yet
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
  }

 private:
  std::vector<pid_t> pids_;
};

void look(benchmark::State& state, bool copies) {
  std::error_code ec;
  ig::stray_mark mark = ig::make_stray_mark(ec);
  ig::stray_target target = ig::target_of(mark);
  ig::remove_stray_mark(mark);  // so that nobody has it
  const crowd others(state.range(0), copies);
  const auto memory = std::make_unique<ig::stray_buffers>();
  const auto report = std::make_unique<ig::stray_report>();
  for (auto _ : state) benchmark::DoNotOptimize(ig::strays_signal(target, 0, *memory, *report));
  state.counters["conclusive"] = report->conclusive ? 1 : 0;
}

void strangers(benchmark::State& state) { look(state, false); }
void copies(benchmark::State& state) { look(state, true); }

void mark_and_remove(benchmark::State& state) {
  for (auto _ : state) {
    std::error_code ec;
    ig::stray_mark mark = ig::make_stray_mark(ec);
    benchmark::DoNotOptimize(ig::target_of(mark));
    ig::remove_stray_mark(mark);
  }
}

}  // namespace

BENCHMARK(strangers)->Arg(0)->Arg(100)->Arg(1000)->Unit(benchmark::kMicrosecond);
BENCHMARK(copies)->Arg(100)->Arg(1000)->Unit(benchmark::kMicrosecond);
BENCHMARK(mark_and_remove)->Unit(benchmark::kMicrosecond);
