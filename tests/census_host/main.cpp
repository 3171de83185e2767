// Builds the staged host and takes a census of it, or runs a command in it.
//
//   census_host ACTOR                 prints "known|PID|LABEL|TRUTH", "found|KIND|PID|LEVEL|extra
//   or
//                                     keep", "note|KIND|PID"
//   census_host ACTOR COMMAND…        writes the "known" lines to a file that CENSUS_TRUTH names
//   census_host --audit               as such a command: takes the census
//
// Exit 77, with "skipped: why" on stderr, where such a host can't be made.
#include <poll.h>
#include <sys/syscall.h>

#include <chrono>
#include <instance_guard/ghost_census.hpp>
#include <iostream>
#include <set>
#include <thread>

#include "../support/temporary_directory.hpp"
#include "stage.hpp"

namespace {

using census_host::stage;
namespace fs = std::filesystem;

[[noreturn]] void skip(const std::string& why) {
  std::fprintf(stderr, "skipped: %s: %s\n", why.c_str(), std::strerror(errno));
  ::_exit(77);
}

/// A control group of its own, for the host's services; gone with it.
class host_cgroup {
 public:
  explicit host_cgroup(const std::string& name) {
    std::ifstream mounts("/proc/self/mountinfo");
    std::string root;
    for (std::string line; std::getline(mounts, line);) {
      std::istringstream fields(line);
      std::string place;
      for (int i = 0; i < 5; ++i) fields >> place;
      if (line.find(" - cgroup2 ") != std::string::npos) root = place;
    }
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; !root.empty() && std::getline(groups, line);)
      if (line.starts_with("0::")) path_ = root + line.substr(3) + "/" + name;
    if (path_.empty() || ::mkdir(path_.c_str(), 0755) != 0) path_.clear();
  }
  host_cgroup(const host_cgroup&) = delete;
  host_cgroup& operator=(const host_cgroup&) = delete;
  ~host_cgroup() {
    if (path_.empty()) return;
    // Its processes are ending: a group can be removed once it is empty.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (bool left = true; left && std::chrono::steady_clock::now() < end; ::usleep(1000)) {
      std::error_code ignored;
      for (const auto& each : fs::directory_iterator(path_, ignored))
        if (each.is_directory(ignored)) ::rmdir(each.path().c_str());
      left = ::rmdir(path_.c_str()) != 0 && errno != ENOENT;
    }
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Process 1 of a pid namespace that shows its own /proc.
void become_separate() {
  const uid_t user = ::getuid();
  const gid_t group = ::getgid();
  const bool root = ::geteuid() == 0;
  if (::unshare(CLONE_NEWPID | CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0) skip("unshare");
  if (root) return;
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
  std::ofstream("/proc/self/gid_map") << "0 " << group << " 1";
  if (::getuid() != 0) skip("user namespace");
}

/// What a census found, a line each, in no order.
std::multiset<std::string> lines_of(const instance_guard::census& result) {
  using namespace instance_guard;
  std::multiset<std::string> lines;
  for (const ghost& each : result.ghosts)
    for (const census_entry& one : each.processes)
      lines.insert("found|" + std::string(to_string(each.kind)) + "|" + std::to_string(one.process.id.pid) + "|" +
                   std::string(to_string(each.level)) + "|" + (one.keep ? "keep" : "extra"));
  for (const note& each : result.notes)
    for (const census_entry& one : each.processes)
      lines.insert("note|" + std::string(to_string(each.kind)) + "|" + std::to_string(one.process.id.pid));
  for (const blind_spot& each : result.blind_spots)
    lines.insert("blind|" + each.what + "|" + std::to_string(each.count));
  return lines;
}

/// `fresh`: pids of those that were started last, a word each. They are too young to be judged.
/// False: a census of the table that an audit reads, without what most rules can do without, finds
/// something else than one of all that there is.
bool audit(const std::string& fresh, const std::string& locks) {
  using namespace instance_guard;
  census_options options;
  options.all_users = true;
  options.lock_directory = locks;
  options.min_age = std::chrono::seconds(0);
  const process_table before = process_table::read();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const process_table now = process_table::read();
  const process_table audited = process_table::read(census_read_options(options));
  std::istringstream pids(fresh);
  for (pid_t pid = 0; pids >> pid;)
    if (const process_info* row = audited.find(pid))
      options.min_age = std::max(options.min_age, std::chrono::duration_cast<std::chrono::seconds>(audited.age(*row)) +
                                                      std::chrono::seconds(1));
  const census result = take_census(now, &before, options);
  const auto found = lines_of(result);
  for (const std::string& each : found) std::cout << each << "\n";
  for (const ghost& each : result.ghosts)
    std::cerr << to_string(each.level) << " " << to_string(each.kind) << "  " << each.headline << "\n  why  "
              << each.why << "\n  do   " << each.remedy << "\n";
  const auto same = lines_of(take_census(audited, &before, options));
  for (const std::string& each : same)
    if (found.count(each) != same.count(each)) std::cerr << "only with the table of an audit: " << each << "\n";
  for (const std::string& each : found)
    if (found.count(each) != same.count(each)) std::cerr << "not with the table of an audit: " << each << "\n";
  return found == same;
}

/// Lets the clock go on: what happens within one second can't be told apart.
void let_time_pass() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2200);
  while (std::chrono::steady_clock::now() < end) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int run(const std::string& root, const std::string& actor, const std::string& cgroup, char** command) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, "init");
  ::signal(SIGHUP, SIG_DFL);
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) skip("private mounts");
  if (::mount("proc", "/proc", "proc", 0, nullptr) != 0) skip("a /proc of its own");
  for (const char* each : {"CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_ID", "CODEX_SANDBOX",
                           "GEMINI_CLI", "CURSOR_AGENT", "CURSOR_TRACE_ID", "RUNNER_TRACKING_ID", "GITHUB_ACTIONS",
                           "JENKINS_NODE_COOKIE", "INSTANCE_GUARD_SESSION", "INSTANCE_GUARD_KEEP", "PWD"})
    ::unsetenv(each);
  stage s(root, actor, cgroup);
  stage_zombies(s);
  stage_orphans(s);
  stage_duplicates(s);
  stage_stale(s);
  s.complete();
  s.end_the_doomed();
  let_time_pass();
  s.change_it();
  s.complete();
  s.end_the_doomed();
  let_time_pass();
  stage_fresh(s);
  s.complete();
  const char* truth = command != nullptr ? ::getenv("CENSUS_TRUTH") : nullptr;
  std::ofstream file(truth == nullptr ? "" : truth);
  for (const auto& each : s.known())
    (truth == nullptr ? std::cout : file) << "known|" << each.pid << "|" << each.label << "|" << each.truth << "\n";
  file.close();
  std::cout.flush();
  ::close(9);
  std::string fresh;
  for (const auto& each : s.known())
    if (each.label.starts_with("decoy.fresh")) fresh += std::to_string(each.pid) + " ";
  const pid_t auditor = ::fork();
  if (auditor == 0) {
    if (command != nullptr) {
      ::setenv("CENSUS_FRESH", fresh.c_str(), 1);
      ::setenv("CENSUS_LOCKS", s.locks().c_str(), 1);
      ::execvp(command[0], command);
      ::_exit(127);
    }
    const bool same = audit(fresh, s.locks());
    std::cout.flush();
    ::_exit(same ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(auditor, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) return 64;
  if (std::string_view(words[1]) == "--audit") {
    const char* fresh = ::getenv("CENSUS_FRESH");
    const char* locks = ::getenv("CENSUS_LOCKS");
    return audit(fresh != nullptr ? fresh : "", locks != nullptr ? locks : "") ? 0 : 1;
  }
  const support::temporary_directory directory;
  const host_cgroup cgroup("census-" + directory.path().filename().string());
  become_separate();
  const pid_t first = ::fork();
  if (first == 0) {
    const int code = run(directory.path().string(), words[1], cgroup.path(), count > 2 ? words + 2 : nullptr);
    ::_exit(code);
  }
  int status = 0;
  while (::waitpid(first, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
