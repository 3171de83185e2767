// doctor: what the kernel and process 1 do for containment here.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <instance_guard/process_identity.hpp>

#include "doctor.hpp"
#include "doctor_actors.hpp"
#include "process_facts.hpp"
#include "process_text.hpp"
#include "text.hpp"

namespace tool {

using instance_guard::process_handle;
using instance_guard::process_identity;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

finding check_pidfd() {
  actor sleeper({"sleep"});
  const auto line = sleeper.line();
  std::error_code ec;
  auto handle = process_handle::open(process_identity::of(number_behind(line.value_or(""), "ready"), ec), ec);
  if (!ec) handle.signal(SIGTERM, ec);
  const bool ended = !ec && handle.wait_for(patience, ec);
  if (!ended) return found("pidfd", false, "a process can't be signalled: " + ec.message());
  if (handle.descriptor() < 0)
    return {"pidfd", verdict::part, "none: pid and start time are read again before each signal"};
  return found("pidfd", true, "signals go through a pidfd, never to a reused pid");
}

finding check_subreaper() {
  // In a process of its own: it stays one for good.
  const pid_t child = ::fork();
  if (child == 0) {
    int is = 0;
    const bool set = ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 &&
                     ::prctl(PR_GET_CHILD_SUBREAPER, &is, 0, 0, 0) == 0 && is == 1;
    ::_exit(set ? 0 : 1);
  }
  int status = 1;
  if (child > 0) ::waitpid(child, &status, 0);
  return found("reaper", status == 0,
               status == 0 ? "a process can adopt its orphaned descendants (subreaper)"
                           : "no subreaper: orphans can't be followed");
}

finding check_proc() {
  const process_identity self = process_identity::self();
  const bool listed = !all_processes().empty() && self.complete();
  if (!listed) return found("/proc", false, "processes can't be listed");
  const std::string task = "/proc/self/task/" + std::to_string(::getpid()) + "/children";
  const bool children = ::access(task.c_str(), R_OK) == 0;
  return found("/proc", true,
               children ? "processes are listed, and their children"
                        : "processes are listed; no file of children: parents are scanned");
}

/// The directory of this process's cgroup, version 2; empty: there is none.
std::string own_cgroup() {
  std::istringstream mounts(contents("/proc/self/mountinfo"));
  std::string root;
  for (std::string line; std::getline(mounts, line);) {
    const std::size_t dash = line.find(" - cgroup2 ");
    if (dash == std::string::npos) continue;
    std::istringstream fields(line);
    std::string field;
    for (int i = 0; i < 5; ++i) fields >> field;
    root = field;
  }
  if (root.empty()) return {};
  std::istringstream groups(contents("/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);)
    if (line.rfind("0::", 0) == 0) return root + line.substr(3);
  return {};
}

finding check_cgroup() {
  const std::string otherwise = "; the warden ends a tree one by one";
  const std::string own = own_cgroup();
  if (own.empty()) return {"cgroup", verdict::note, "no cgroups of version 2" + otherwise};
  const std::string made = own + "/" + doctors_name("cgroup");
  if (::mkdir(made.c_str(), 0755) != 0) return {"cgroup", verdict::note, "none is delegated to this user" + otherwise};
  finding result{"cgroup", verdict::note, "cgroup.kill does not work" + otherwise};
  {
    actor sleeper({"sleep"});
    const pid_t pid = number_behind(sleeper.line().value_or(""), "ready");
    std::error_code ec;
    const auto who = process_identity::of(pid, ec);
    const bool moved = (std::ofstream(made + "/cgroup.procs") << pid).flush().good();
    const bool killed = moved && (std::ofstream(made + "/cgroup.kill") << 1).flush().good();
    auto handle = process_handle::open(who, ec);
    const bool ended = killed && (ec || handle.wait_for(patience, ec));
    if (ended) result = found("cgroup", true, "cgroup.kill ends a delegated cgroup at once");
    sleeper.kill();
    sleeper.wait();
  }
  const auto end = steady_clock::now() + patience;
  while (::rmdir(made.c_str()) != 0 && errno == EBUSY && steady_clock::now() < end)
    std::this_thread::sleep_for(milliseconds(1));
  return result;
}

/// Who adopts an orphan, and whether it is reaped. The orphan says both numbers and ends.
finding check_init() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return found("init", false, "not tried: no pipe");
  const pid_t middle = ::fork();
  if (middle == 0) {
    const pid_t parent = ::getpid();
    if (::fork() != 0) ::_exit(0);
    ::alarm(60);
    while (::getppid() == parent) ::usleep(100);
    const pid_t numbers[2] = {::getpid(), ::getppid()};
    ::_exit(::write(ends[1], numbers, sizeof numbers) == sizeof numbers ? 0 : 1);
  }
  ::close(ends[1]);
  const instance_guard::file_descriptor answer(ends[0]);
  if (middle > 0) ::waitpid(middle, nullptr, 0);
  pid_t numbers[2] = {0, 0};
  pollfd entry{answer.get(), POLLIN, 0};
  const auto limit = static_cast<int>(milliseconds(patience).count());
  if (::poll(&entry, 1, limit) <= 0 || ::read(answer.get(), numbers, sizeof numbers) != sizeof numbers)
    return found("init", false, "not tried: an orphan does not answer");
  process_facts facts;
  // Some look round now and then only, and more slowly where there is much to do.
  const auto end = steady_clock::now() + milliseconds(5'000);
  bool reaped = false;
  while (!reaped && steady_clock::now() < end) {
    reaped = !read_facts(numbers[0], facts) || facts.parent != numbers[1];
    if (!reaped) std::this_thread::sleep_for(milliseconds(1));
  }
  const std::string who = "pid " + std::to_string(numbers[1]) + " (" + shown(name_of(numbers[1])) + ")";
  return found("init", reaped,
               reaped ? who + " adopts and reaps what a killed owner leaves"
                      : who + " does not reap: the warden of a killed owner stays a zombie");
}

}  // namespace

std::vector<finding> check_kernel() {
  return {check_pidfd(), check_subreaper(), check_proc(), check_cgroup(), check_init()};
}

}  // namespace tool
