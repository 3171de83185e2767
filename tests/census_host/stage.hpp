// A host of its own: a pid namespace with its own /proc, in which each process is known by a label
// and by what a census should call it. Made by process 1 of it; when that ends, all end.
//
// Every process of the host writes "pid|label|truth" to descriptor 9 once it is what it is, and
// closes it: at its end the host is complete.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace census_host {

namespace fs = std::filesystem;

/// One of the host's processes: what it looks like, and what a census should say of it: "orphan",
/// "duplicate,stale", "keep" (of a duplicate), "kill" (it is ended when the host is complete), or
/// nothing.
struct actor {
  std::string label = {};
  std::string truth = {};
  std::vector<std::string> arguments = {};
  std::string executable = {};  ///< empty: the first argument
  std::string directory = {};   ///< empty: /
  std::vector<std::string> environment = {};
};

struct known_process {
  pid_t pid = 0;
  std::string label = {};
  std::string truth = {};
};

class stage {
 public:
  stage(fs::path root, fs::path actor_program, fs::path cgroup)
      : root_(std::move(root)), actor_(std::move(actor_program)), cgroup_(std::move(cgroup)) {
    open_report();
    fs::permissions(root_, fs::perms(0755));
    locks_ = path("locks");
    fs::create_directories(locks_);
    fs::permissions(locks_, fs::perms::owner_all);
  }

  std::string path(const std::string& name) const { return (root_ / name).string(); }
  const std::string& locks() const { return locks_; }
  /// A guard's name that no other host has.
  std::string guard(const std::string& name) const {
    std::string result = "census-";
    for (const char c : root_.filename().string())
      if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) result += c;
      else if (c >= 'A' && c <= 'Z') result += static_cast<char>(c - 'A' + 'a');
    return result + "-" + name;
  }
  bool has_cgroups() const { return !cgroup_.empty(); }

  /// A program of that path: the actor under another name.
  std::string program(const std::string& name) const {
    const std::string where = path(name);
    fs::create_directories(fs::path(where).parent_path());
    if (fs::exists(where)) return where;
    // Others may do the same just now: nobody may meet half a file, nor one that is written to.
    const std::string own = where + "." + std::to_string(::getpid());
    fs::copy_file(actor_, own);
    if (::link(own.c_str(), where.c_str()) != 0 && errno != EEXIST) fail("program " + name);
    fs::remove(own);
    return where;
  }
  /// Another file under the same path, as an installer puts it there.
  void replace(const std::string& where) const {
    fs::copy_file(actor_, where + ".new");
    fs::rename(where + ".new", where);
  }
  std::string file(const std::string& name, const std::string& text = "x\n", bool executable = false) const {
    const std::string where = path(name);
    fs::create_directories(fs::path(where).parent_path());
    std::ofstream(where) << text;
    if (executable) fs::permissions(where, fs::perms(0755));
    return where;
  }
  /// A script that the kernel hands to the host's python3.
  std::string script(const std::string& name) const {
    return file(name, "#!" + program("usr/bin/python3.11") + "\n", true);
  }

  /// fork(2): the child goes on in `part`, which ends by become() or exit.
  pid_t start(const std::function<void()>& part) const {
    const pid_t child = ::fork();
    if (child == 0) {
      part();
      ::_exit(0);
    }
    if (child < 0) fail("fork");
    return child;
  }
  /// The same in a session of its own.
  pid_t start_session(const std::function<void()>& part) const {
    return start([&] {
      ::setsid();
      part();
    });
  }
  /// In a job of its own, as an interactive shell starts it.
  pid_t start_job(const std::function<void()>& part) const {
    return start([&] {
      ::setpgid(0, 0);
      part();
    });
  }
  /// The one between ends at once: what is started is left to process 1.
  void start_left(const std::function<void()>& part) const {
    const pid_t between = start([&] { start(part); });
    ::waitpid(between, nullptr, 0);
  }
  /// A session whose leader ends at once, as daemon programs fork twice.
  void start_twice_forked(const std::function<void()>& part) const {
    const pid_t between = start([&] {
      ::setsid();
      start(part);
    });
    ::waitpid(between, nullptr, 0);
  }
  /// In a session with a terminal of its own, which stays open.
  void start_in_terminal(const std::function<void()>& part) {
    const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
    char name[128];
    if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0 || ::ptsname_r(master, name, sizeof name) != 0)
      fail("terminal");
    start([&] {
      ::setsid();
      const int slave = ::open(name, O_RDWR);
      terminal_ = name;
      if (slave < 0 || ::ioctl(slave, TIOCSCTTY, 0) != 0) fail("controlling terminal");
      part();
    });
  }
  /// In there: its name.
  const std::string& terminal() const { return terminal_; }
  /// An interactive shell in a terminal, and what it runs.
  void start_in_shell(const std::string& label, const std::function<void()>& jobs) {
    start_in_terminal([&] {
      jobs();
      become_shell(label);
    });
  }
  [[noreturn]] void become_shell(const std::string& label) const {
    become_reaper();
    become({.label = label + ": its shell", .arguments = {"-bash"}, .executable = program("usr/bin/bash")});
  }
  /// Below a service manager: in a control group of that name, or, without the right to make one,
  /// below a supervisor.
  void start_managed(const std::string& unit, const std::function<void()>& part) {
    if (has_cgroups()) {
      const fs::path group = cgroup_ / unit;
      fs::create_directories(group);
      start_session([&] {
        if (!(std::ofstream(group / "cgroup.procs") << ::getpid()).flush().good()) fail("cgroup.procs");
        part();
      });
      return;
    }
    start_session([&] {
      start_session(part);
      become_reaper();
      become({.label = "supervisor of " + unit,
              .arguments = {"supervisord", "-n"},
              .executable = program("usr/bin/supervisord")});
    });
  }

  /// Children that end are gone at once: what shells and supervisors see to.
  static void become_reaper() { ::signal(SIGCHLD, SIG_IGN); }

  [[noreturn]] void become(const actor& what) const {
    ::setenv("CENSUS_LABEL", what.label.c_str(), 1);
    ::setenv("CENSUS_TRUTH", what.truth.c_str(), 1);
    for (const std::string& each : what.environment) {
      const std::size_t sign = each.find('=');
      ::setenv(each.substr(0, sign).c_str(), each.substr(sign + 1).c_str(), 1);
    }
    const std::string directory = what.directory.empty() ? "/" : what.directory;
    if (::chdir(directory.c_str()) != 0) fail("chdir " + directory);
    if (::getenv("PWD") == nullptr) ::setenv("PWD", directory.c_str(), 1);
    std::vector<char*> words;
    for (const std::string& each : what.arguments) words.push_back(const_cast<char*>(each.c_str()));
    words.push_back(nullptr);
    ::execv((what.executable.empty() ? what.arguments.front() : what.executable).c_str(), words.data());
    fail("exec for " + what.label);
  }

  /// Reports a process that will not become an actor.
  static void report(const std::string& label, const std::string& truth) {
    const std::string line = std::to_string(::getpid()) + "|" + label + "|" + truth + "\n";
    [[maybe_unused]] const auto size = ::write(9, line.data(), line.size());
  }

  /// Something that is done once the host is complete and has lived for some seconds.
  void later(std::function<void()> change) { later_.push_back(std::move(change)); }
  void change_it() {
    for (const auto& each : later_) each();
    later_.clear();
  }

  /// Waits until every process is what it should be. Then there may be more.
  void complete() {
    ::close(9);
    std::string text;
    char block[4096];
    for (;;) {
      pollfd entry{reports_, POLLIN, 0};
      if (::poll(&entry, 1, 60'000) == 0) fail("not complete after a minute; until then: " + text);
      const ssize_t size = ::read(reports_, block, sizeof block);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) break;
      text.append(block, static_cast<std::size_t>(size));
    }
    ::close(reports_);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      known_process one;
      std::istringstream fields(line);
      std::string pid;
      std::getline(fields, pid, '|');
      std::getline(fields, one.label, '|');
      std::getline(fields, one.truth);
      one.pid = static_cast<pid_t>(std::strtol(pid.c_str(), nullptr, 10));
      if (one.pid <= 0) fail("a process said: " + line);
      known_.push_back(one);
    }
    open_report();
  }

  std::vector<known_process>& known() { return known_; }

  /// Ends those that should be gone by now, and waits for it.
  void end_the_doomed() {
    std::vector<known_process> rest;
    for (known_process& each : known_) {
      if (each.truth == "kill") ::kill(each.pid, SIGKILL);
      if (each.truth != "kill" && each.truth != "refused") rest.push_back(each);
    }
    for (const known_process& each : known_)
      while (each.truth == "kill" || each.truth == "refused") {
        while (::waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        if (::kill(each.pid, 0) != 0) break;
        ::usleep(1000);
      }
    known_ = std::move(rest);
  }

  [[noreturn]] static void fail(const std::string& what) {
    const std::string line = "0|" + what + ": " + std::strerror(errno) + "\n";
    [[maybe_unused]] auto size = ::write(9, line.data(), line.size());
    size = ::write(2, line.data(), line.size());
    ::_exit(70);
  }

 private:
  void open_report() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
    reports_ = ::fcntl(ends[0], F_DUPFD_CLOEXEC, 20);
    ::close(ends[0]);
    if (ends[1] != 9) {
      ::dup2(ends[1], 9);
      ::close(ends[1]);
    }
  }

  fs::path root_;
  fs::path actor_;
  fs::path cgroup_;
  std::string locks_;
  std::string terminal_;
  int reports_ = -1;
  std::vector<known_process> known_;
  std::vector<std::function<void()>> later_;
};

// Each in a file of its own.
void stage_zombies(stage&);
void stage_orphans(stage&);
void stage_duplicates(stage&);
void stage_stale(stage&);
void stage_fresh(stage&);  ///< when all others have lived for some seconds

}  // namespace census_host
