// What a look at all processes costs, at 200, 2,000 and 10,000 of them: the table of this library,
// lean and with what `ps aux` and the audit ask for, beside ps, psutil and the script that the
// audit takes the place of. Prints one table; each figure is processor time, the least of several
// runs.
//
//   bench_table_bench            all sizes
//   bench_table_bench 2000       this many
//
// What is not installed is left out. Its crowd of processes sleeps, and ends with it.
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <instance_guard/process_table.hpp>
#include <string>
#include <vector>

namespace {

using namespace instance_guard;

/// Bytes of the heap in use.
std::size_t heap_in_use() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

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

/// Processor time, user and system, of this process and of the children that it has reaped.
double processor_milliseconds() {
  double sum = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage used = {};
    ::getrusage(who, &used);
    for (const timeval& each : {used.ru_utime, used.ru_stime})
      sum += static_cast<double>(each.tv_sec) * 1e3 + static_cast<double>(each.tv_usec) / 1e3;
  }
  return sum;
}

/// The least processor time of several runs: that of the clock would be that of the neighbours,
/// too. 0: the work failed.
template <class Work>
double least_milliseconds(int rounds, Work work) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double begin = processor_milliseconds();
    if (!work()) return 0;
    best = std::min(best, processor_milliseconds() - begin);
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
    "'memory_info','cmdline','create_time','terminal']): p.info\n";
constexpr char psutil_everything[] =
    "import psutil\n"
    "for p in psutil.process_iter(['pid','ppid','name','username','status','cpu_times',"
    "'memory_info','cmdline','create_time','terminal','exe','cwd','environ','num_threads']): "
    "p.info\n";
constexpr char psutil_import[] = "import psutil";

/// A Python that has psutil; empty: none.
std::string python_with_psutil() {
  for (const char* each : {"python3", "/usr/bin/python3"})
    if (run({each, "-c", psutil_import})) return each;
  return {};
}

constexpr char old_script[] = R"(ps aux --sort=etime | awk 'NR==1 || $10 ~ /[0-9]+-/' | head -20
for service in foresight shiva leverage hermes apollo; do
  count=$(pgrep -c -f "$service" 2>/dev/null || echo 0)
  if [ "$count" -gt 1 ]; then pgrep -a -f "$service"; fi
done
ps aux | awk '$8 == "Z"' | head -10
ps aux | grep "[p]ytest" | awk '{print $1, $2, $11}'
true)";

/// `ours` is what it is compared with.
void row(const char* what, double took, double ours) {
  if (took <= 0)
    std::printf("  %-46s %13s\n", what, "not here");
  else
    std::printf("  %-46s %10.2f ms %8.1f x\n", what, took, took / ours);
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
  const std::size_t before = heap_in_use();
  std::size_t rows = 0;
  std::size_t kept = 0;
  {
    const process_table table = process_table::read();
    rows = table.size();
    kept = heap_in_use() - before;
  }
  const double lean = least_milliseconds(rounds, [&] { return read_with({}); });
  const double like_ps = least_milliseconds(rounds, [&] { return read_with(arguments); });
  const double all =
      least_milliseconds(rounds, [&] { return read_with(read_options::everything()); });
  const double program = least_milliseconds(rounds, [&] { return run({self, "--list"}); });
  const double ps = least_milliseconds(rounds, [] { return run({"ps", "aux"}); });
  const std::string python = python_with_psutil();
  const auto by_psutil = [&](const char* text) {
    if (python.empty()) return 0.0;
    const double start = least_milliseconds(rounds, [&] {
      return run({python, "-c", psutil_import});
    });
    return least_milliseconds(rounds, [&] { return run({python, "-c", text}); }) - start;
  };
  const double psutil = by_psutil(psutil_all);
  const double psutil_most = by_psutil(psutil_everything);
  const double script = least_milliseconds(count > 5'000 ? 1 : std::min(rounds, 3), [] {
    return run({"sh", "-c", old_script});
  });
  std::printf("%zu processes, %zu of them the crowd: lean table %zu bytes a process\n", rows,
              sleepers.size(), kept / rows);
  std::printf("  %-46s %13s %10s\n", "", "", "as ours");
  row("process_table, lean", lean, lean);
  row("process_table, with arguments", like_ps, like_ps);
  row("... a whole program that prints them", program, like_ps);
  row("ps aux", ps, like_ps);
  row("psutil.process_iter, what ps aux tells*", psutil, like_ps);
  row("the weekly script", script, like_ps);
  row("process_table, everything", all, all);
  row("psutil.process_iter, everything*", psutil_most, all);
  std::printf("  * without the start of Python and the import\n");
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
      measure(each, each > 5'000 ? 3 : 7, program);
  }
}
