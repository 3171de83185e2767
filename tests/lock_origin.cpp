// started_from: where a process came from, in words.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

using namespace instance_guard;
using detail::origin_of_cgroups;
using detail::terminal_name;
using detail::unit_of_cgroup;

namespace {

/// What a forked child says of itself.
std::string told_by_child(const std::function<std::string()>& tell) {
  int answer[2];
  REQUIRE(::pipe(answer) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const std::string text = tell();
    ::_exit(::write(answer[1], text.data(), text.size()) < 0 ? 1 : 0);
  }
  ::close(answer[1]);
  std::string text;
  char block[256];
  for (ssize_t size = 0; (size = ::read(answer[0], block, sizeof block)) > 0;)
    text.append(block, static_cast<std::size_t>(size));
  ::close(answer[0]);
  ::waitpid(pid, nullptr, 0);
  return text;
}

}  // namespace

TEST_CASE("a service is told by its cgroup, of the system or of a user") {
  CHECK(unit_of_cgroup("/system.slice/shiva.service") == "systemd unit shiva.service");
  CHECK(unit_of_cgroup("/system.slice/system-bot.slice/bot@7.service") == "systemd unit bot@7.service");
  CHECK(unit_of_cgroup("/user.slice/user-1000.slice/user@1000.service/app.slice/shiva.service") ==
        "systemd user unit shiva.service");
  CHECK(unit_of_cgroup("/system.slice/shiva.service/payload/x") == "systemd unit shiva.service");
}

TEST_CASE("sessions, logins, cron and containers are no services") {
  for (const char* path :
       {"/", "", "/user.slice/user-1000.slice/session-3.scope", "/user.slice/user-1000.slice/user@1000.service",
        "/user.slice/user-1000.slice/user@1000.service/init.scope", "/system.slice/ssh.service",
        "/system.slice/sshd.service", "/system.slice/system-sshd.slice/sshd@7-10.0.0.1:22.service",
        "/system.slice/cron.service", "/system.slice/crond.service",
        "/system.slice/system-getty.slice/getty@tty1.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope", "/system.slice/docker-abc.scope",
        "/system.slice/docker.service.d", ".service"}) {
    CAPTURE(path);
    CHECK(unit_of_cgroup(path).empty());
  }
}

TEST_CASE("what a job has started is a runner's, not a service: nobody starts it again") {
  for (const char* unit : {"actions.runner.knox-shiva.tesseract.service", "jenkins.service", "gitlab-runner.service",
                           "buildkite-agent@1.service", "jenkins-agent@2.service", "gitea-runner.service"}) {
    CAPTURE(unit);
    CHECK(unit_of_cgroup(std::string("/system.slice/") + unit) == std::string("CI runner unit ") + unit);
    CHECK(origin_of_cgroups(std::string("0::/system.slice/") + unit + "/job\n") ==
          std::string("CI runner unit ") + unit);
    CHECK(unit_of_cgroup(std::string("/user.slice/user-1000.slice/user@1000.service/app.slice/") + unit) ==
          std::string("CI runner user unit ") + unit);
  }
  for (const char* unit : {"jenkins-report.service", "buildkite-agent-metrics.service", "actions.service",
                           "runner.service", "gitlab.service"}) {
    CAPTURE(unit);
    CHECK(unit_of_cgroup(std::string("/system.slice/") + unit) == std::string("systemd unit ") + unit);
  }
}

TEST_CASE("the list of cgroups is read in both versions, and any bytes are bearable") {
  CHECK(origin_of_cgroups("0::/system.slice/shiva.service\n") == "systemd unit shiva.service");
  CHECK(origin_of_cgroups("12:cpu,cpuacct:/\n1:name=systemd:/system.slice/shiva.service\n0::/\n") ==
        "systemd unit shiva.service");
  CHECK(origin_of_cgroups("12:cpu:/system.slice/shiva.service\n") == "");
  CHECK(origin_of_cgroups("0::/docker/0123\n") == "container");
  CHECK(origin_of_cgroups("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n") == "container");
  CHECK(origin_of_cgroups("0::/user.slice/x.slice/user@1.service/user.slice/libpod-1.scope/container\n") ==
        "container");
  for (const char* text : {"", "\n\n", ":", "::", "a:b", "0::", "0::/"}) CHECK(origin_of_cgroups(text).empty());
}

TEST_CASE("terminals have the names of their devices") {
  const auto device = [](unsigned major, unsigned minor) {
    return static_cast<int>((minor & 0xff) | major << 8 | (minor & ~0xffU) << 12);
  };
  CHECK(terminal_name(0).empty());
  CHECK(terminal_name(device(136, 3)) == "/dev/pts/3");
  CHECK(terminal_name(device(137, 5)) == "/dev/pts/261");
  CHECK(terminal_name(device(136, 300)) == "/dev/pts/300");
  CHECK(terminal_name(device(4, 1)) == "/dev/tty1");
  CHECK(terminal_name(device(4, 64)) == "/dev/ttyS0");
  CHECK(terminal_name(device(204, 64)) == "device 204:64");
}

TEST_CASE("a process on a terminal is told by that terminal") {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) {
    MESSAGE("skipped: no pseudo terminals here");
    return;
  }
  const std::string name = ::ptsname(master);
  const std::string told = told_by_child([&]() -> std::string {
    ::setsid();
    if (::open(name.c_str(), O_RDWR) < 0) return "no terminal";
    return detail::started_from(::getpid());
  });
  CHECK(told.find("terminal " + name) != std::string::npos);
  ::close(master);
}

TEST_CASE("what came through tmux, ssh or cron is told by the nearest of them among the parents") {
  for (const auto& each : {std::pair{"tmux: server", "tmux"}, std::pair{"sshd", "ssh"}, std::pair{"cron", "cron"},
                           std::pair{"SCREEN", "screen"}, std::pair{"atd", "at"}}) {
    const char* const name = each.first;
    CAPTURE(name);
    const std::string told = told_by_child([&] {
      ::prctl(PR_SET_NAME, "sshd", 0, 0, 0);
      return told_by_child([&] {
        ::prctl(PR_SET_NAME, name, 0, 0, 0);
        ::setsid();
        return told_by_child([&] {
          ::prctl(PR_SET_NAME, "bot", 0, 0, 0);
          return detail::started_from(::getpid());
        });
      });
    });
    CHECK((told.starts_with(each.second) || told.starts_with("systemd")));
  }
}

TEST_CASE("where nothing can be told it says so") {
  CHECK(!detail::started_from(::getpid()).empty());
  CHECK(!detail::started_from(0).empty());
}
