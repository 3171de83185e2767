// broker: a service that was there before, and starts others in its client's environment, as
// tmux, at and pm2 do.
#include "helper.hpp"

#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <unistd.h>

extern char** environ;

namespace helper {

/// For each client that opens the FIFO and writes an environment into it ("K=V" lines, until it
/// closes), a child with that environment does the words. The broker itself stays.
void broker(const char* value, words after) {
  ready("broker");
  for (;;) {
    const int fifo = open(value, O_RDONLY | O_CLOEXEC);
    if (fifo < 0) {
      perror("helper: broker");
      _exit(73);
    }
    std::string text;
    char block[4096];
    for (ssize_t size = 0; (size = read(fifo, block, sizeof block)) > 0;)
      text.append(block, static_cast<std::size_t>(size));
    close(fifo);
    if (text.empty() || fork_capped() != 0) continue;
    // Executed again, so that /proc shows the client's environment as this child's.
    char* list[1024] = {};
    std::size_t count = 0;
    for (char* line = text.data(); *line != '\0' && count < 1023;) {
      char* end = line;
      while (*end != '\n' && *end != '\0') ++end;
      list[count++] = line;
      line = *end == '\0' ? end : end + 1;
      *end = '\0';
    }
    char name[] = "helper";
    char* arguments[64] = {name};
    for (std::size_t i = 1; i < 63 && !after.empty(); ++i, after = after.rest()) arguments[i] = *after.next;
    execve("/proc/self/exe", arguments, list);
    perror("helper: execve");
    _exit(126);
  }
}

}  // namespace helper
