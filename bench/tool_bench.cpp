// What `instance-guard run` costs: in time over the command alone and beside other wrappers, in memory
// while it waits, in size, and in shared objects. In one run:
//   bench_tool_bench --benchmark_repetitions=10 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace {

const std::string tool = TOOL;

pid_t start(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& each : words) arguments.push_back(const_cast<char*>(each.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = -1;
  return ::posix_spawnp(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ) == 0 ? pid : -1;
}

/// From the start of the wrapper until its end has been seen.
void wrap(benchmark::State& state, std::vector<std::string> words) {
  words.push_back("true");
  for (auto unused : state) {
    (void)unused;
    const pid_t pid = start(words);
    int status = -1;
    if (pid < 0) {
      state.SkipWithError("not installed");
      break;
    }
    if (::waitpid(pid, &status, 0) != pid || status != 0) {
      state.SkipWithError("failed");
      break;
    }
  }
}

/// Private memory of a process, in KiB.
double private_memory(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  double kib = 0;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("Private_")) kib += std::atof(line.c_str() + line.find(':') + 1);
  return kib;
}

std::vector<pid_t> children(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  std::vector<pid_t> result;
  for (pid_t each = 0; file >> each;) result.push_back(each);
  return result;
}

/// While the command runs: the tool, and its warden.
void waiting(benchmark::State& state) {
  double own = 0, warden = 0, objects = 0;
  for (auto unused : state) {
    (void)unused;
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    const pid_t pid = start({tool, "run", "--", "sh", "-c", "echo; exec sleep 60"});
    ::close(ends[1]);
    for (int i = 0; i < 200 && children(pid).empty(); ++i) ::usleep(10'000);
    ::usleep(200'000);
    own = private_memory(pid);
    for (const pid_t each : children(pid)) warden += private_memory(each);
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    std::string last;
    for (std::string line; std::getline(maps, line);) {
      const auto at = line.find('/');
      const std::string path = at == std::string::npos ? "" : line.substr(at);
      if (path.find(".so") != std::string::npos && path != last) ++objects;
      if (!path.empty()) last = path;
    }
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ::close(ends[0]);
  }
  state.counters["tool_KiB"] = own;
  state.counters["warden_KiB"] = warden;
  state.counters["shared_objects"] = objects;
}

void stripped_size(benchmark::State& state) {
  const std::string copy = std::filesystem::temp_directory_path() / ("tool_bench-" + std::to_string(::getpid()));
  for (auto unused : state) {
    (void)unused;
    const pid_t pid = start({"strip", "-o", copy, tool});
    if (pid > 0) ::waitpid(pid, nullptr, 0);
  }
  std::error_code ec;
  state.counters["bytes"] = static_cast<double>(std::filesystem::file_size(copy, ec));
  std::filesystem::remove(copy, ec);
}

}  // namespace

BENCHMARK_CAPTURE(wrap, true, {})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(wrap, tini, {"tini", "-s", "--"})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(wrap, dumb_init, {"dumb-init"})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(wrap, instance_guard, {tool, "run", "--"})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(waiting)->Iterations(1);
BENCHMARK(stripped_size)->Iterations(1);
