// What a look at all processes costs, at 200, 2,000 and 10,000 of them: the table of this library,
// lean and with what `ps aux`, psutil and the audit ask for, and a whole census, beside ps, psutil
// and the script that the audit takes the place of. Prints one table for each crowd: the processor
// time of each, the least of several runs, and how many times as much the others take.
//
//   bench_table_bench            all sizes
//   bench_table_bench 2000       this many
//
// Of two kinds of processes, one after the other: workers, which one program has forked (what they
// run, and were started with, is their parent's, and the audit does not read it again), and programs,
// of which each has executed a file of its own (nothing of it is known before it is read).
//
// "Bare calls" are the system calls alone that each process costs, with nothing made of them, and
// through the fewest path names: no table of this content can be faster.
//
//   lean            stat, owner of the directory
//   ps aux          cmdline as well
//   psutil          exe, cwd and environ as well
//   the audit       of a program the same; of a worker stat, owner and cwd. Who manages a process
//                   (cgroup) it reads only of those that a rule asks about: that is in the census.
//   the census      in addition: root, and of each program what it maps (maps): half of its time
//
// What is not installed is left out. Its crowd of processes sleeps, and ends with it. Where it may (as
// root) it measures in a pid namespace of its own, so that what others start meanwhile does not count.
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <instance_guard/ghost_census.hpp>
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

/// Processes that sleep until this one ends: children of one that keeps them, as a server has its
/// workers. `program`: what each executes; empty: they are copies of their parent.
class crowd {
 public:
  crowd(std::size_t count, const std::string& program) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    int ready[2] = {-1, -1};
    if (::pipe2(ready, O_CLOEXEC) != 0) return;
    keeper_ = ::fork();
    if (keeper_ == 0) keep(count, program, ready[1]);
    ::close(ready[1]);
    // Its end: all have begun to sleep, or have executed their program.
    for (char byte = 0; ::read(ready[0], &byte, 1) > 0;) ++size_;
    ::close(ready[0]);
  }
  crowd(const crowd&) = delete;
  crowd& operator=(const crowd&) = delete;
  ~crowd() {
    if (keeper_ <= 0) return;
    ::kill(keeper_, SIGKILL);
    while (::waitpid(-1, nullptr, 0) > 0) continue;  // each of them has been left to this process
  }
  std::size_t size() const { return size_; }

 private:
  [[noreturn]] static void sleep_on() {
    for (;;) ::pause();
  }
  [[noreturn]] static void keep(std::size_t count, const std::string& program, int ready) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const pid_t self = ::getpid();
    std::vector<char> told;
    for (std::size_t i = 0; i < count; ++i) {
      const pid_t pid = ::fork();
      if (pid < 0) break;
      if (pid > 0) {
        told.push_back('.');
        continue;
      }
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != self) ::_exit(0);
      if (!program.empty()) ::execl(program.c_str(), program.c_str(), "--sleep", static_cast<char*>(nullptr));
      if (!program.empty()) ::_exit(127);
      ::close(ready);
      sleep_on();
    }
    for (std::size_t sent = 0; sent < told.size();) {
      const ssize_t done = ::write(ready, told.data() + sent, told.size() - sent);
      if (done <= 0) break;
      sent += static_cast<std::size_t>(done);
    }
    ::close(ready);
    sleep_on();
  }
  pid_t keeper_ = -1;
  std::size_t size_ = 0;
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
                static_cast<long long>(each.cpu_time.count()), static_cast<unsigned long long>(each.resident_bytes),
                static_cast<unsigned long long>(each.terminal), static_cast<char>(each.state),
                static_cast<long long>(table.age(each).count()), line.c_str());
  }
  return 0;
}

/// The system calls of a look at each process; false: /proc can't be listed.
struct bare_calls {
  bool arguments = false;
  bool executable = false;
  bool directory = false;
  bool environment = false;

  bool make() const {
    const int list = ::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list < 0) return false;
    char entries[32'768];
    context here = {this, list};
    instance_guard::platform::for_each_process_in(list, entries, sizeof entries, &one, &here);
    ::close(list);
    return true;
  }

 private:
  struct context {
    const bare_calls* calls;
    int list;
  };
  static void read_file(int directory, const char* name, std::size_t size) {
    static char buffer[16'384];
    const int file = ::openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    if (::read(file, buffer, size) < 0) ++failed_;
    ::close(file);
  }
  static void read_link(int directory, const char* name) {
    static char buffer[4096];
    if (::readlinkat(directory, name, buffer, sizeof buffer) < 0) ++failed_;
  }
  static bool one(pid_t pid, void* at) noexcept {
    const context& here = *static_cast<const context*>(at);
    const bare_calls& calls = *here.calls;
    struct stat facts = {};
    char path[64];
    if (!calls.arguments && !calls.executable && !calls.directory && !calls.environment) {
      std::snprintf(path, sizeof path, "%d", pid);
      if (::fstatat(here.list, path, &facts, AT_SYMLINK_NOFOLLOW) != 0) return true;
      std::snprintf(path, sizeof path, "%d/stat", pid);
      read_file(here.list, path, 1024);
      return true;
    }
    std::snprintf(path, sizeof path, "%d", pid);
    const int directory = ::openat(here.list, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || ::fstat(directory, &facts) != 0) return true;
    read_file(directory, "stat", 1024);
    if (calls.executable) read_link(directory, "exe");
    if (calls.directory) read_link(directory, "cwd");
    if (calls.arguments) read_file(directory, "cmdline", 4096);
    if (calls.environment) read_file(directory, "environ", 16'384);
    ::close(directory);
    return true;
  }
  static inline std::size_t failed_ = 0;  // of a process that has ended, or a thread of the kernel
};

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

/// What others need for it.
struct others {
  double ps = 0;
  double psutil = 0;             ///< what `ps aux` tells
  double psutil_everything = 0;  ///< as far as it can: no cgroup, session, group, namespace
  double script = 0;
};

/// How many times as long the others take.
void row(const char* what, double took, std::size_t rows, const others& than) {
  std::printf("  %-39s %9.2f ms %7.2f us", what, took, took * 1000 / static_cast<double>(rows));
  for (const double other : {than.ps, than.psutil, than.psutil_everything, than.script})
    if (other > 0) std::printf(" %8.1f x", other / took);
    else std::printf(" %10s", "-");
  std::printf("\n");
}

others measure_others(int rounds, int script_rounds) {
  others result;
  result.ps = least_milliseconds(rounds, [] { return run({"ps", "aux"}); });
  result.script = least_milliseconds(script_rounds, [] { return run({"sh", "-c", old_script}); });
  const std::string python = python_with_psutil();
  if (python.empty()) return result;
  const auto by_psutil = [&](const char* text) {
    return least_milliseconds(rounds, [&] { return run({python, "-c", text}); });
  };
  const double start = by_psutil(psutil_import);
  result.psutil = by_psutil(psutil_all) - start;
  result.psutil_everything = by_psutil(psutil_everything) - start;
  return result;
}

void measure(std::size_t count, int rounds, const std::string& self, bool programs) {
  const crowd sleepers(count, programs ? self : std::string());
  const auto read_with = [&](const read_options& what) {
    return least_milliseconds(rounds, [&] {
      std::error_code ec;
      const process_table table = process_table::read(what, ec);
      return !ec;
    });
  };
  const auto bare = [&](const bare_calls& calls) { return least_milliseconds(rounds, [&] { return calls.make(); }); };
  const auto heap_of = [](const read_options& what, std::size_t& rows) {
    const std::size_t before = heap_in_use();
    const process_table table = process_table::read(what);
    rows = table.size();
    return (heap_in_use() - before) / rows;
  };
  read_options arguments;
  arguments.arguments = true;
  read_options as_psutil = read_options::everything();
  as_psutil.cgroup = as_psutil.file_ids = false;
  // A whole audit but the words: its table, and what the rules make of it. (Without a zombie it does
  // not wait, and reads no second one.)
  const census_options all_users = [] {
    census_options result;
    result.all_users = true;
    return result;
  }();
  const read_options audit = census_read_options(all_users);
  const auto whole = [&] {
    std::error_code ec;
    const process_table table = process_table::read(audit, ec);
    if (!ec) take_census(table, nullptr, all_users, ec);
    return !ec;
  };
  std::size_t rows = 0;
  const std::size_t audit_bytes = heap_of(audit, rows);
  const std::size_t lean_bytes = heap_of({}, rows);
  const others than = measure_others(rounds, count > 5'000 ? 1 : std::min(rounds, 3));
  std::printf("%zu processes, %zu of them %s: table %zu bytes a process, the audit's %zu\n", rows, sleepers.size(),
              programs ? "programs" : "workers", lean_bytes, audit_bytes);
  std::printf("  %-39s %12s %10s %10s %10s %10s %10s\n", "", "", "a process", "ps aux", "psutil*", "all of it*",
              "script");
  row("process_table, lean", read_with({}), rows, than);
  row("   its bare calls", bare({}), rows, than);
  row("process_table, what ps aux tells", read_with(arguments), rows, than);
  row("   its bare calls", bare({.arguments = true}), rows, than);
  row("... a whole program that prints it",
      least_milliseconds(rounds,
                         [&] {
                           return run({self, "--list"});
                         }),
      rows, than);
  row("process_table, all that psutil tells", read_with(as_psutil), rows, than);
  const bare_calls all = {.arguments = true, .executable = true, .directory = true, .environment = true};
  row("   its bare calls", bare(all), rows, than);
  row("process_table, what the audit reads", read_with(audit), rows, than);
  row("   its bare calls", bare(programs ? all : bare_calls{.directory = true}), rows, than);
  row("process_table, everything", read_with(read_options::everything()), rows, than);
  row("a whole census, table and rules", least_milliseconds(rounds, whole), rows, than);
  std::printf(
      "  * process_iter: what ps aux tells; with exe, cwd, environ, num_threads as well.\n"
      "    Without the start of Python and the import. The others, each by itself: %.1f,\n"
      "    %.1f, %.1f, %.1f ms\n\n",
      than.ps, than.psutil, than.psutil_everything, than.script);
  std::fflush(stdout);
}

/// Runs the rest of the program where no others are; what to exit with, or -1: it can't.
template <class Rest>
int alone(Rest rest) {
  constexpr int impossible = 99;
  const auto status_of = [](pid_t child) {
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  };
  const pid_t outside = ::fork();
  if (outside < 0) return -1;
  if (outside > 0) {
    const int code = status_of(outside);
    return code == impossible ? -1 : code;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) ::_exit(impossible);
  const pid_t inside = ::fork();
  if (inside < 0) ::_exit(impossible);
  if (inside > 0) ::_exit(status_of(inside));
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(impossible);
  if (::mount("proc", "/proc", "proc", 0, nullptr) != 0) ::_exit(impossible);
  rest();
  std::fflush(stdout);
  ::_exit(0);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string first = count > 1 ? arguments[1] : "";
  if (first == "--list") return list_like_ps();
  if (first == "--sleep")
    for (;;) ::pause();
  const std::string self = "/proc/self/exe";
  char path[4096];
  const ssize_t size = ::readlink(self.c_str(), path, sizeof path);
  if (size <= 0) return 1;
  const std::string program(path, static_cast<std::size_t>(size));
  std::vector<std::size_t> sizes = {200, 2'000, 10'000};
  int rounds = 7;
  if (first.rfind("--benchmark", 0) == 0) {  // as a test it only has to run
    sizes = {20};
    rounds = 1;
  } else if (!first.empty()) {
    sizes = {static_cast<std::size_t>(std::strtoul(first.c_str(), nullptr, 10))};
  }
  const auto measure_all = [&] {
    for (const bool programs : {false, true})
      for (const std::size_t each : sizes)
        measure(each, each > 5'000 ? std::min(rounds, 3) : rounds, program, programs);
  };
  const int code = alone(measure_all);
  if (code >= 0) return code;
  measure_all();
}
