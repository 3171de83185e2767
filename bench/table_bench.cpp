// What a look at all processes costs, at 200, 2,000 and 10,000 of them: the table of this library,
// lean and with what `ps aux` and the audit ask for, beside ps, psutil and the script that the
// audit takes the place of. Prints one table; each figure is the least of several runs.
//
//   bench_table_bench            all sizes
//   bench_table_bench 2000       this many
//
// What is not installed is left out. Its crowd of processes sleeps, and ends with it.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <instance_guard/process_table.hpp>
#include <new>
#include <string>
#include <vector>

namespace {

std::size_t allocated = 0;
std::size_t most_allocated = 0;

}  // namespace

// Counts what is held at the same time.
void* operator new(std::size_t size) {
  constexpr std::size_t header = alignof(std::max_align_t);
  auto* block = static_cast<char*>(std::malloc(size + header));
  if (block == nullptr) throw std::bad_alloc();
  std::memcpy(block, &size, sizeof size);
  allocated += size;
  most_allocated = std::max(most_allocated, allocated);
  return block + header;
}
void operator delete(void* pointer) noexcept {
  constexpr std::size_t header = alignof(std::max_align_t);
  if (pointer == nullptr) return;
  char* block = static_cast<char*>(pointer) - header;
  std::size_t size = 0;
  std::memcpy(&size, block, sizeof size);
  allocated -= size;
  std::free(block);
}
void operator delete(void* pointer, std::size_t) noexcept { operator delete(pointer); }

namespace {

using namespace instance_guard;
using clock_type = std::chrono::steady_clock;

/// Processes that sleep until this one ends.
class crowd {
 public:
  explicit crowd(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() == 1) ::_exit(0);
        for (;;) ::pause();
      }
      if (pid < 0) break;
      pids_.push_back(pid);
    }
  }
  crowd(const crowd&) = delete;
  crowd& operator=(const crowd&) = delete;
  ~crowd() {
    for (const pid_t each : pids_) ::kill(each, SIGKILL);
    for (const pid_t each : pids_) ::waitpid(each, nullptr, 0);
  }
  std::size_t size() const { return pids_.size(); }

 private:
  std::vector<pid_t> pids_;
};

template <class Work>
double least_milliseconds(int rounds, Work work) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = clock_type::now();
    if (!work()) return 0;
    const std::chrono::duration<double, std::milli> took = clock_type::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

/// Runs a program with its output thrown away. False: it failed.
bool run(const std::vector<std::string>& words) {
  std::vector<char*> list;
  for (const std::string& each : words) list.push_back(const_cast<char*>(each.c_str()));
  list.push_back(nullptr);
  const pid_t child = ::vfork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 1);
    ::dup2(null, 2);
    ::execvp(list[0], list.data());
    ::_exit(127);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// What `ps aux` tells, by this library: for the time of a whole program.
int list_like_ps() {
  read_options what;
  what.arguments = true;
  const process_table table = process_table::read(what);
  for (const process_info& each : table) {
    std::string line;
    for (const std::string& word : table.stored_details(each)->arguments) line += word + " ";
    std::printf("%u %d %lld %llu %llu %c %lld %s\n", each.user, each.id.pid,
                static_cast<long long>(each.cpu_time.count()),
                static_cast<unsigned long long>(each.resident_bytes),
                static_cast<unsigned long long>(each.terminal), static_cast<char>(each.state),
                static_cast<long long>(table.age(each).count()), line.c_str());
  }
  return 0;
}

constexpr char psutil_all[] =
    "import psutil\n"
    "for p in psutil.process_iter(['pid','ppid','name','username','status','cpu_times',"
    "'memory_info','cmdline','create_time','terminal']): p.info";
constexpr char psutil_import[] = "import psutil";

constexpr char old_script[] = R"(ps aux --sort=etime | awk 'NR==1 || $10 ~ /[0-9]+-/' | head -20
for service in foresight shiva leverage hermes apollo; do
  count=$(pgrep -c -f "$service" 2>/dev/null || echo 0)
  if [ "$count" -gt 1 ]; then pgrep -a -f "$service"; fi
done
ps aux | awk '$8 == "Z"' | head -10
ps aux | grep "[p]ytest" | awk '{print $1, $2, $11}'
true)";

void row(const char* what, double took, double ours) {
  if (took <= 0)
    std::printf("  %-44s %10s\n", what, "not here");
  else
    std::printf("  %-44s %10.2f ms %8.1f x\n", what, took, took / ours);
}

void measure(std::size_t count, int rounds, const std::string& self) {
  const crowd sleepers(count);
  const auto read_with = [](const read_options& what) {
    std::error_code ec;
    const process_table table = process_table::read(what, ec);
    return !ec;
  };
  read_options arguments;
  arguments.arguments = true;
  const std::size_t before = allocated;
  most_allocated = before;
  std::size_t rows = 0;
  std::size_t kept = 0;
  {
    const process_table table = process_table::read();
    rows = table.size();
    kept = allocated - before;
  }
  const std::size_t most = most_allocated - before;
  const double lean = least_milliseconds(rounds, [&] { return read_with({}); });
  const double like_ps = least_milliseconds(rounds, [&] { return read_with(arguments); });
  const double all =
      least_milliseconds(rounds, [&] { return read_with(read_options::everything()); });
  const double program = least_milliseconds(rounds, [&] { return run({self, "--list"}); });
  const double ps = least_milliseconds(rounds, [] { return run({"ps", "aux"}); });
  const double imported = least_milliseconds(rounds, [] {
    return run({"python3", "-c", psutil_import});
  });
  const double psutil = imported > 0
                            ? least_milliseconds(rounds,
                                                 [] {
                                                   return run({"python3", "-c", psutil_all});
                                                 }) -
                                  imported
                            : 0;
  const double script = least_milliseconds(std::min(rounds, 3), [] {
    return run({"sh", "-c", old_script});
  });
  std::printf(
      "%zu processes, %zu of them the crowd: lean table %zu bytes a process (%zu while reading)\n",
      rows, sleepers.size(), kept / rows, most / rows);
  row("process_table, lean", lean, like_ps);
  row("process_table, arguments (as ps aux)", like_ps, like_ps);
  row("process_table, everything", all, like_ps);
  row("the same as ps aux, a whole program", program, like_ps);
  row("ps aux", ps, like_ps);
  row("psutil.process_iter, as ps aux, no start-up", psutil, like_ps);
  row("the old script", script, like_ps);
  std::printf("  per process: lean %.2f us, arguments %.2f us, everything %.2f us\n\n",
              lean * 1000 / static_cast<double>(rows), like_ps * 1000 / static_cast<double>(rows),
              all * 1000 / static_cast<double>(rows));
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string first = count > 1 ? arguments[1] : "";
  if (first == "--list") return list_like_ps();
  const std::string self = "/proc/self/exe";
  char path[4096];
  const ssize_t size = ::readlink(self.c_str(), path, sizeof path);
  if (size <= 0) return 1;
  const std::string program(path, static_cast<std::size_t>(size));
  if (first.rfind("--benchmark", 0) == 0) {  // as a test it only has to run
    measure(20, 1, program);
  } else if (!first.empty()) {
    measure(static_cast<std::size_t>(std::strtoul(first.c_str(), nullptr, 10)), 5, program);
  } else {
    for (const std::size_t each : {200U, 2'000U, 10'000U})
      measure(each, each > 5'000 ? 5 : 9, program);
  }
}
