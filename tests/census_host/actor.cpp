// Stands for any program on the staged host: it does nothing, under whatever name and arguments.
//
// Its environment says what it is: CENSUS_LABEL, CENSUS_TRUTH (what a census should call it) are
// reported on descriptor 9; CENSUS_COMM renames it, CENSUS_MAP maps a file, CENSUS_GUARD takes a
// guard in CENSUS_LOCKS first (refused: it reports that and ends), CENSUS_HEADLESS ends its main
// thread. It ends by itself after some minutes.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <instance_guard/pid_lockfile.hpp>

namespace {

const char* told(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

void report(const char* truth) {
  char line[512];
  const int size = snprintf(line, sizeof line, "%d|%s|%s\n", getpid(), told("CENSUS_LABEL"), truth);
  [[maybe_unused]] const ssize_t written = write(9, line, static_cast<size_t>(size));
}

/// So that nothing in its environment but what it was given tells it from its like.
void forget_the_host() {
  for (char** each = environ; *each != nullptr; ++each)
    if (strncmp(*each, "CENSUS_", 7) == 0) memset(*each, 0, strlen(*each));
}

void* stay(void*) {
  for (;;) pause();
}

}  // namespace

int main() {
  alarm(300);
  if (*told("CENSUS_COMM") != '\0') prctl(PR_SET_NAME, told("CENSUS_COMM"));
  if (*told("CENSUS_MAP") != '\0') {
    const int file = open(told("CENSUS_MAP"), O_RDONLY | O_CLOEXEC);
    if (mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED) return 1;
    close(file);
  }
  instance_guard::pid_lockfile lock;
  if (*told("CENSUS_GUARD") != '\0') {
    instance_guard::lock_options options;
    options.directory = told("CENSUS_LOCKS");
    std::error_code ec;
    lock = instance_guard::pid_lockfile(told("CENSUS_GUARD"), options, ec);
    if (!lock) {
      report("refused");
      return 75;
    }
  }
  if (*told("CENSUS_HEADLESS") != '\0') {
    pthread_t other;
    if (pthread_create(&other, nullptr, stay, nullptr) != 0) return 1;
    report(told("CENSUS_TRUTH"));
    forget_the_host();
    close(9);
    syscall(SYS_exit, 0);  // this thread alone; pthread_exit would unwind, with whatever unwinder it finds
  }
  report(told("CENSUS_TRUTH"));
  forget_the_host();
  close(9);
  stay(nullptr);
}
