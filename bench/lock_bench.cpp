// Taking a name and letting it go, against the bare system calls that this needs, and against a
// plain flock as many programs have it; verify(); looking at a name.
//
// In one run, so that they can be compared:
//   bench_lock_bench --benchmark_repetitions=10 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <instance_guard/pid_lockfile.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace {

using namespace instance_guard;

struct place {
  std::string directory = "/tmp/instance_guard_bench." + std::to_string(::getpid());
  std::string name = "bench-" + std::to_string(::getpid());
  std::string file = directory + "/" + name + ".lock";
  place() { std::filesystem::create_directory(directory); }
  ~place() { std::filesystem::remove_all(directory); }
  lock_options options() const {
    lock_options result;
    result.directory = directory;
    return result;
  }
};

void must(long result) {
  if (result < 0) std::abort();
}

void take_and_release(benchmark::State& state) {
  const place here;
  const lock_options options = here.options();
  for (auto _ : state) {
    std::error_code ec;
    pid_lockfile lock(here.name, options, ec);
    if (ec) std::abort();
  }
}

// What cannot be left out: both locks, the checks of file and directory, the record.
void bare_system_calls(benchmark::State& state) {
  const place here;
  const std::string record(400, 'x');
  const std::string socket_name = "instance_guard/user/" + std::to_string(::geteuid()) + "/" + here.name;
  for (auto _ : state) {
    struct stat facts = {};
    const int directory = ::open(here.directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    must(::fstat(directory, &facts));
    const int file = ::open(here.file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    must(::fstat(file, &facts));
    must(::flock(file, LOCK_EX | LOCK_NB));
    must(::lstat(here.file.c_str(), &facts));
    char old[4097];
    must(::pread(file, old, sizeof old, 0));
    struct flock all = {};
    all.l_type = F_WRLCK;
    must(::fcntl(file, F_OFD_SETLK, &all));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    socket_name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
    const int bound = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    must(::bind(bound, reinterpret_cast<sockaddr*>(&address),
                static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + socket_name.size())));
    must(::listen(bound, 4096));
    must(::flock(directory, LOCK_SH | LOCK_NB));
    must(::pwrite(file, record.data(), record.size(), 0));
    must(::ftruncate(file, static_cast<off_t>(record.size())));
    must(::unlink(here.file.c_str()));
    ::close(file);
    ::close(directory);
    ::close(bound);
  }
}

// One lock, a pid, no checks: two starts can both pass, see docs/reliability.md.
void plain_flock(benchmark::State& state) {
  const place here;
  const std::string pid = std::to_string(::getpid()) + "\n";
  for (auto _ : state) {
    const int file = ::open(here.file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(::flock(file, LOCK_EX | LOCK_NB));
    must(::ftruncate(file, 0));
    must(::pwrite(file, pid.data(), pid.size(), 0));
    must(::unlink(here.file.c_str()));
    ::close(file);
  }
}

void verify_held(benchmark::State& state) {
  const place here;
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  for (auto _ : state) {
    lock.verify(ec);
    if (ec) std::abort();
  }
}

void refused(benchmark::State& state) {
  const place here;
  const lock_options options = here.options();
  std::error_code ec;
  const pid_lockfile lock(here.name, options, ec);
  for (auto _ : state) {
    pid_lockfile second(here.name, options, ec);
    if (ec != errc::already_running) std::abort();
  }
}

void query_held(benchmark::State& state) {
  const place here;
  const lock_options options = here.options();
  std::error_code ec;
  const pid_lockfile lock(here.name, options, ec);
  for (auto _ : state) benchmark::DoNotOptimize(query_lock(here.name, options, ec));
}

BENCHMARK(take_and_release);
BENCHMARK(bare_system_calls);
BENCHMARK(plain_flock);
BENCHMARK(verify_held);
BENCHMARK(refused);
BENCHMARK(query_held);

}  // namespace
