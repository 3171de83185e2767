// The recipes for systemd, under a real service manager: `systemd --user`, in namespaces of its
// own.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"
#include "support/wait_until.hpp"

using namespace support;
namespace fs = std::filesystem;

namespace {

const std::string tool = INSTANCE_GUARD_TOOL;

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

struct said {
  int code = -1;
  std::string out = {};
  bool says(const std::string& text) const { return out.find(text) != std::string::npos; }
};

/// A line for the shell; what it says, to stderr as well.
said sh(const std::string& line) {
  said result;
  FILE* pipe = ::popen(("exec 2>&1; " + line).c_str(), "r");
  if (pipe == nullptr) return result;
  char block[4096];
  for (std::size_t size = 0; (size = std::fread(block, 1, sizeof block, pipe)) > 0;) result.out.append(block, size);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  return result;
}

said ask(const std::string& line) { return sh(tool + " " + line); }
said systemctl(const std::string& line) { return sh("systemctl --user --no-pager " + line); }
pid_t main_pid() { return static_cast<pid_t>(std::atoi(systemctl("show -P MainPID shiva.service").out.c_str())); }

/// A check that also works in a forked part.
bool expect(bool holds, const std::string& what, const said& got = {}) {
  if (!holds) std::fprintf(stderr, "not so: %s\nexit %d\n%s\n", what.c_str(), got.code, got.out.c_str());
  return holds;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at != std::string::npos) text.replace(at, from.size(), to);
}

/// The unit of the recipe, for this tool, this name and another program, restarted at once.
std::string unit(const std::string& name, const std::string& more, const std::string& command) {
  std::string text = contents(INSTANCE_GUARD_RECIPES "/shiva.service");
  replace(text, "/usr/bin/instance-guard", tool);
  replace(text, "--name shiva", "--name " + name + more);
  replace(text, "/usr/bin/python3 -m shiva", command);
  replace(text, "/srv/shiva", "/");
  replace(text, "RestartSec=10", "RestartSec=100ms");
  return text;
}

std::string manager_program() {
  for (const char* each : {"/lib/systemd/systemd", "/usr/lib/systemd/systemd"})
    if (::access(each, X_OK) == 0) return each;
  return {};
}

/// Where control groups of version 2 can be made; empty: nowhere.
fs::path group_root() {
  constexpr unsigned long version_2 = 0x63677270;
  for (const char* each : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs facts = {};
    if (::statfs(each, &facts) == 0 && static_cast<unsigned long>(facts.f_type) == version_2 &&
        ::access((fs::path(each) / "cgroup.procs").c_str(), W_OK) == 0)
      return each;
  }
  return {};
}

/// Goes into the group, which looks like all there is from now on: a manager moves whatever it
/// finds.
bool enter(const fs::path& group) {
  return std::ofstream(group / "cgroup.procs") << 0 << std::flush && ::unshare(CLONE_NEWCGROUP) == 0 &&
         ::mount("none", "/sys/fs/cgroup", "cgroup2", 0, nullptr) == 0 &&
         contents("/proc/self/cgroup").find("0::/\n") != std::string::npos;
}

/// Becomes a host that was booted by systemd, with a manager of these units. False: not here.
bool start_manager(const scene& s, const fs::path& group) {
  if (::mount("none", "/run", "tmpfs", 0, nullptr) != 0) return false;
  fs::create_directories("/run/systemd/system");
  fs::create_directories("/run/manager");
  fs::permissions("/run/manager", fs::perms::owner_all);
  if (!enter(group)) return false;
  ::setenv("XDG_RUNTIME_DIR", "/run/manager", 1);
  ::setenv("XDG_CONFIG_HOME", (s / "config").c_str(), 1);
  ::setenv("HOME", (s / ".").c_str(), 1);
  ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
  const pid_t manager = ::fork();
  if (manager == 0) {
    const int log = ::open((s / "log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(log, 1);
    ::dup2(log, 2);
    const std::string program = manager_program();
    ::execl(program.c_str(), program.c_str(), "--user", "--log-target=console", "--unit=basic.target", nullptr);
    ::_exit(127);
  }
  return wait_until([] { return systemctl("show -P Version").code == 0; });
}

/// Runs the part beside a manager that has the units in s / "config"; skipped where there can't be
/// one.
void under_systemd(const scene& s, const std::function<int()>& part) {
  const char* missing = !is_root()                  ? "needs root for a manager of its own"
                        : manager_program().empty() ? "no systemd here"
                        : group_root().empty()      ? "no control groups that can be written to"
                                                    : nullptr;
  if (missing != nullptr) {
    MESSAGE("skipped: " << missing);
    return;
  }
  const fs::path group = group_root() / unique_name("test");
  fs::create_directory(group);
  const int code = in_own_pid_namespace([&] {
    if (!start_manager(s, group)) {
      std::fprintf(stderr, "%s\n", contents(s / "log").c_str());
      return no_namespace;
    }
    return part();
  });
  // All that were in there are dead; the kernel needs a moment to see it.
  const auto gone = [&] {
    std::error_code ec;
    for (int depth = 0; depth < 4; ++depth)
      for (fs::recursive_directory_iterator at(group, ec), end; !ec && at != end; at.increment(ec))
        if (at->is_directory(ec)) ::rmdir(at->path().c_str());
    return ::rmdir(group.c_str()) == 0 || errno == ENOENT;
  };
  CHECK(wait_until(gone));
  if (code == no_namespace) MESSAGE("skipped: a manager can't be started here");
  else CHECK(code == 0);
}

void put(const scene& s, const std::string& name, const std::string& text) {
  const fs::path units = fs::path(s / "config") / "systemd" / "user";
  fs::create_directories(units);
  std::ofstream(units / name) << text;
}

}  // namespace

TEST_CASE("a unit and a start by hand share one name") {
  const scene s;
  const std::string name = unique_name("unit");
  // The daemon's parent stays, so that the unit does.
  put(s, "shiva.service", unit(name, "", "/bin/sh -c '" + s.helper() + " daemon sleep; exec sleep 1000'"));
  under_systemd(s, [&] {
    const auto held_by = [&](pid_t pid) {
      return wait_until([&] {
        const said got = ask("status " + name);
        return got.code == 0 && main_pid() == pid && got.says("pid " + std::to_string(pid));
      });
    };
    const auto daemons = [&] {
      const said got = sh("pgrep -c -f '^" + s.helper() + " daemon sleep'");
      return std::atoi(got.out.c_str());
    };
    said got = systemctl("start shiva.service");
    if (!expect(got.code == 0, "it starts", got)) return 1;
    const pid_t first = main_pid();
    if (!expect(first > 0 && held_by(first), "the unit has the name", ask("status " + name))) return 2;
    if (!expect(wait_until([&] { return daemons() == 1; }), "its daemon runs")) return 3;
    got = ask("status " + name);
    if (!expect(got.says("shiva.service"), "status names the unit", got)) return 4;
    got = ask("run --name " + name + " -- true");
    if (!expect(got.code == 75 && got.says("shiva.service"), "a start by hand is refused by the unit's name", got))
      return 5;
    got = ask("stop " + name);
    if (!expect(got.code == 75 && got.says("systemctl"), "stop leaves it to the manager", got)) return 6;

    // Killed: nothing of it is left when the manager has started it again.
    ::kill(first, SIGKILL);
    if (!expect(wait_until([&] { return main_pid() != first && main_pid() > 0 && ask("status " + name).code == 0; }),
                "it is started again", systemctl("status shiva.service")))
      return 7;
    if (!expect(wait_until([&] { return daemons() == 1; }), "with one daemon, not two", sh("ps -ef"))) return 8;

    got = systemctl("stop shiva.service");
    if (!expect(got.code == 0, "it stops", got)) return 9;
    got = ask("status " + name);
    if (!expect(got.code == 3 && daemons() == 0, "free, and nothing is left", got)) return 10;
    got = systemctl("show -P Result shiva.service");
    return expect(got.out == "success\n", "stopped in order, within the time", got) ? 0 : 11;
  });
}

TEST_CASE("a unit that waits for a start by hand says so to its manager, and takes over") {
  const scene s;
  const std::string name = unique_name("unit");
  put(s, "shiva.service", unit(name, " --wait 1m", "/bin/sleep 1000"));
  under_systemd(s, [&] {
    sh(tool + " run --name " + name + " -- sleep 1000 >/dev/null 2>&1 & echo $! > " + (s / "hand"));
    const pid_t hand = static_cast<pid_t>(std::atoi(contents(s / "hand").c_str()));
    if (!expect(wait_until([&] { return ask("status " + name).code == 0; }), "held by hand")) return 1;
    said got = systemctl("start shiva.service");
    if (!expect(got.code == 0, "the unit starts", got)) return 2;
    const auto status = [] { return systemctl("show -P StatusText shiva.service"); };
    if (!expect(wait_until([&] { return status().says("waiting for pid " + std::to_string(hand)); }), "it waits",
                status()))
      return 3;
    ::kill(hand, SIGTERM);
    if (!expect(wait_until([&] { return status().says("running"); }), "it runs", status())) return 4;
    got = ask("status " + name);
    return expect(got.says("pid " + std::to_string(main_pid())), "it has the name", got) ? 0 : 5;
  });
}

TEST_CASE("the weekly audit runs as a service, and its timer knows when") {
  const scene s;
  std::string service = contents(INSTANCE_GUARD_RECIPES "/ghost-audit.service");
  replace(service, "/usr/bin/instance-guard", tool);
  replace(service, " --discord --webhook-file %d/webhook", "");
  replace(service, "LoadCredential=webhook:/etc/instance-guard/webhook\n",
          "");  // what is not posted needs no address
  replace(service, "/var/lib/node_exporter/instance_guard.prom", s / "instance_guard.prom");
  replace(service, "ReadWritePaths=-/var/lib/node_exporter", "ReadWritePaths=" + (s / "."));
  put(s, "ghost-audit.service", service);
  put(s, "ghost-audit.timer", contents(INSTANCE_GUARD_RECIPES "/ghost-audit.timer"));
  under_systemd(s, [&] {
    said got = systemctl("start ghost-audit.service");
    if (!expect(got.code == 0, "the audit is no failure", systemctl("status ghost-audit.service"))) return 1;
    // Two services are declared and none runs: that is a warning.
    got = {0, contents(s / "instance_guard.prom")};
    if (!expect(got.says("instance_guard_audit_exit_code 1\n"), "it tells what is missing", got)) return 2;
    got = systemctl("start ghost-audit.timer");
    if (!expect(got.code == 0, "the timer starts", got)) return 3;
    got = systemctl("show -P NextElapseUSecRealtime ghost-audit.timer");
    return expect(got.out.size() > 10, "the timer knows when", got) ? 0 : 4;
  });
}
