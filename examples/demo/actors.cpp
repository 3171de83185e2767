#include "actors.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <instance_guard/instance_guard.hpp>

namespace demo {

using namespace std::chrono_literals;

long long now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<long long>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

namespace {

// What a library may do without telling anybody.
void library_starts_a_runner(const std::string& stage) {
  const std::string command = "exec '" + own_path() + "' runner '" + stage + "' library &";
  if (std::system(command.c_str()) != 0) std::puts("the library could not start its runner");
}

void trade_for_ever() {
  std::printf("trading pid=%d at=%lld\n", static_cast<int>(getpid()), now());
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace

int bot(const std::vector<std::string>& arguments) {
  alarm(actor_cap_seconds);
  const std::string& stage = arguments.at(0);
  const std::string& name = arguments.at(1);
  const std::string& wallet = arguments.at(2);
  const std::string& mode = arguments.at(3);
  if (mode == "bare") {
    if (std::system(("exec '" + own_path() + "' runner '" + stage + "' session &").c_str()) != 0) return 1;
    library_starts_a_runner(stage);
    trade_for_ever();
  }
  auto guard =
      instance_guard::single_instance::acquire_or_exit(name, {.children = {.grace = 500ms}, .also_hold = {wallet}});
  std::printf("acquired at=%lld\n", now());
  if (const auto& last = guard.recovered_from())
    std::printf("recovered from pid=%d\n", static_cast<int>(last->process.pid));
  if (mode == "guarded") {
    guard.spawn({own_path(), "runner", stage, "session"});
    library_starts_a_runner(stage);
  }
  trade_for_ever();
  return 0;
}

int runner(const std::vector<std::string>& arguments) {
  // Leaves its parent, its session and its process group, and does not listen.
  if (fork() != 0) _exit(0);
  setsid();
  if (fork() != 0) _exit(0);
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  alarm(actor_cap_seconds);
  const std::filesystem::path stage = arguments.at(0);
  const std::string kind = arguments.at(1);
  const int stamps = open((stage / (kind + ".stamp")).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const auto self = instance_guard::process_identity::self();
  {
    std::ofstream file(stage / (kind + ".new"));
    file << self.pid << ' ' << self.start_time << '\n';
  }
  std::filesystem::rename(stage / (kind + ".new"), stage / (kind + ".id"));
  for (;;) {
    const long long stamp = now();
    if (pwrite(stamps, &stamp, sizeof stamp, 0) != sizeof stamp) return 1;
    usleep(1000);
  }
}

int terminal(const std::vector<std::string>& arguments) {
  alarm(actor_cap_seconds);
  const int screen = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (screen < 0 || grantpt(screen) != 0 || unlockpt(screen) != 0) return 125;
  const char* line = ptsname(screen);
  if (line == nullptr) return 125;
  std::printf("terminal %s\n", line);
  std::fflush(stdout);
  const pid_t program = fork();
  if (program < 0) return 125;
  if (program == 0) {
    setsid();
    const int keyboard = open(line, O_RDWR);
    if (keyboard < 0 || ioctl(keyboard, TIOCSCTTY, 0) != 0) _exit(125);
    for (int stream : {0, 1, 2}) dup2(keyboard, stream);
    std::vector<char*> argv;
    for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  char text[4096];
  ssize_t got = 0;
  while ((got = read(screen, text, sizeof text)) > 0 || (got < 0 && errno == EINTR))
    if (got > 0 && write(STDOUT_FILENO, text, static_cast<size_t>(got)) != got) break;
  int status = 0;
  while (waitpid(program, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace demo
