// show: what this process has inherited, one "key=value" a line, then "end".
#include "helper.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char** environ;

namespace helper {
namespace {

void show_limits() {
  const struct {
    const char* name;
    int which;
  } limits[] = {{"nofile", RLIMIT_NOFILE}, {"core", RLIMIT_CORE},   {"nproc", RLIMIT_NPROC},
                {"stack", RLIMIT_STACK},   {"fsize", RLIMIT_FSIZE}, {"data", RLIMIT_DATA}};
  for (const auto& each : limits) {
    rlimit limit{};
    getrlimit(static_cast<__rlimit_resource>(each.which), &limit);
    say("limit.%s=%llu:%llu", each.name, static_cast<unsigned long long>(limit.rlim_cur),
        static_cast<unsigned long long>(limit.rlim_max));
  }
}

/// Name:\tvalue of /proc/self/status becomes status.Name=value.
void show_status() {
  FILE* file = fopen("/proc/self/status", "re");
  if (file == nullptr) return;
  char line[512];
  while (fgets(line, sizeof line, file) != nullptr) {
    char* colon = strchr(line, ':');
    if (colon == nullptr) continue;
    *colon = '\0';
    char* value = colon + 1 + strspn(colon + 1, " \t");
    value[strcspn(value, "\n")] = '\0';
    const std::string_view key = line;
    for (const std::string_view wanted :
         {"SigIgn", "SigBlk", "SigCgt", "NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "Uid", "Gid", "Groups"})
      if (key == wanted) say("status.%s=%s", line, value);
  }
  fclose(file);
}

void show_descriptors() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return;
  std::string all;
  while (const dirent* each = readdir(directory)) {
    if (each->d_name[0] == '.' || atoi(each->d_name) == dirfd(directory)) continue;
    char target[256] = {};
    const std::string path = std::string("/proc/self/fd/") + each->d_name;
    if (readlink(path.c_str(), target, sizeof target - 1) < 0) continue;
    say("fd.%s=%s", each->d_name, target);
    all += (all.empty() ? "" : ",") + std::string(each->d_name);
  }
  closedir(directory);
  say("fds=%s", all.c_str());
}

}  // namespace

void show(const char*, words) {
  const mode_t mask = umask(0);
  umask(mask);
  say("pid=%d", getpid());
  say("parent=%d", getppid());
  say("group=%d", getpgrp());
  say("session=%d", getsid(0));
  say("umask=%03o", mask);
  say("nice=%d", getpriority(PRIO_PROCESS, 0));
  std::uint64_t scheduling[6] = {48};  // struct sched_attr; the fourth word is its slice, from Linux 6.12
  if (syscall(SYS_sched_getattr, 0, scheduling, sizeof scheduling, 0) == 0)
    say("slice=%llu", static_cast<unsigned long long>(scheduling[3]));
  char directory[4096] = {};
  say("cwd=%s", getcwd(directory, sizeof directory) != nullptr ? directory : "?");
  cpu_set_t processors;
  CPU_ZERO(&processors);
  sched_getaffinity(0, sizeof processors, &processors);
  std::string list;
  for (int each = 0; each < CPU_SETSIZE; ++each)
    if (CPU_ISSET(each, &processors)) list += (list.empty() ? "" : ",") + std::to_string(each);
  say("affinity=%s", list.c_str());
  int death_signal = 0;
  prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0);
  say("pdeathsig=%d", death_signal);
  show_limits();
  show_status();
  show_descriptors();
  for (char** each = environ; *each != nullptr; ++each) say("env.%s", *each);
  say("end");
  _exit(0);
}

}  // namespace helper
