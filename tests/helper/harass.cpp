// harass: makes the moments long that a race needs.
#include "helper.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

namespace helper {
namespace {

bool is_called(const char* pid, const char* name) {
  char path[64], text[64] = {};
  snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return false;
  const std::size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  return size > 0 && strncmp(text, name, size - 1) == 0 && strlen(name) == size - 1;
}

}  // namespace

/// Stops every process of this name again and again, each time for some 100 ms, and lets it run
/// for up to 2 ms. It would stop strangers as well: only for a pid namespace of the test's own.
void harass(const char* value, words) {
  ready("harass");
  srandom(static_cast<unsigned>(getpid()));
  for (;;) {
    DIR* directory = opendir("/proc");
    if (directory == nullptr) _exit(71);
    while (const dirent* each = readdir(directory)) {
      if (each->d_name[0] < '1' || each->d_name[0] > '9' || !is_called(each->d_name, value)) continue;
      const auto pid = static_cast<pid_t>(atol(each->d_name));
      kill(pid, SIGSTOP);
      usleep(static_cast<useconds_t>(80'000 + random() % 40'000));
      kill(pid, SIGCONT);
    }
    closedir(directory);
    usleep(static_cast<useconds_t>(random() % 2'000));
  }
}

}  // namespace helper
