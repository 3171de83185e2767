// Words that end the line: what a process does for ever, or how it ends.
#include "helper.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

namespace helper {

void sleeping(const char*, words) {
  ready("sleep");
  rest();
}

void exiting(const char* value, words) { _exit(static_cast<int>(number(value))); }

void signalled(const char* value, words) {
  const int which = static_cast<int>(number(value));
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(which, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, which);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  kill(getpid(), which);
  rest();
}

void stopped(const char*, words) {
  ready("stopped");
  for (;;) kill(getpid(), SIGSTOP);
}

void spinning(const char*, words) {
  ready("spin");
  for (;;) now();
}

void witness(const char* value, words) {
  const int file = open(value, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    perror("helper: witness");
    _exit(73);
  }
  for (bool told = false;; usleep(1000)) {
    const std::int64_t stamp = now();
    if (pwrite(file, &stamp, sizeof stamp, 0) != sizeof stamp) _exit(74);
    if (!told) ready("witness");
    told = true;
  }
}

namespace {
void write_all(int descriptor, char letter, long total) {
  char block[65'536];
  memset(block, letter, sizeof block);
  while (total > 0) {
    const auto size = total < static_cast<long>(sizeof block) ? static_cast<std::size_t>(total) : sizeof block;
    const ssize_t written = write(descriptor, block, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      _exit(74);
    }
    total -= written;
  }
}
}  // namespace

void writing(const char* value, words after) {
  write_all(1, 'x', number(value));
  proceed(after);
}

void writing_err(const char* value, words after) {
  write_all(2, 'y', number(value));
  proceed(after);
}

void echo(const char*, words) {
  char block[65'536];
  for (;;) {
    const ssize_t size = read(0, block, sizeof block);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) _exit(size == 0 ? 0 : 74);
    for (ssize_t done = 0; done < size;) {
      const ssize_t written = write(1, block + done, static_cast<std::size_t>(size - done));
      if (written > 0) done += written;
      else if (errno != EINTR) _exit(74);
    }
  }
}

void until_eof(const char*, words) {
  char block[4096];
  ssize_t size = 0;
  ready("until-eof");
  do size = read(0, block, sizeof block);
  while (size > 0 || (size < 0 && errno == EINTR));
  _exit(size == 0 ? 0 : 74);
}

void flooding(const char*, words) {
  char garbage[512];
  memset(garbage, 0x7f, sizeof garbage);
  signal(SIGPIPE, SIG_IGN);
  ready("flood");
  for (;;) {
    int found = 0;
    for (int descriptor = 3; descriptor < 1024; ++descriptor) {
      if (fcntl(descriptor, F_GETFD) < 0) continue;
      ++found;
      fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
      for (int i = 0; i < 100; ++i)
        if (write(descriptor, garbage, sizeof garbage) <= 0) break;
    }
    if (found == 0) rest();
    usleep(1000);
  }
}

void lease(const char* value, words) {
  // fcntl(2), F_SETLEASE: an open elsewhere waits until the lease is given up. The signal that
  // asks for it is ignored. The file must not be open anywhere else.
  signal(SIGIO, SIG_IGN);
  const int file = open(value, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fcntl(file, F_SETLEASE, F_WRLCK) != 0) {
    perror("helper: lease");
    _exit(73);
  }
  ready("lease");
  rest();
}

namespace {
volatile sig_atomic_t asked = 0;
}

void slow_term(const char* value, words) {
  const long milliseconds = number(value);
  struct sigaction action {};
  action.sa_handler = [](int) { asked = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &before);
  ready("slow-term");
  while (asked == 0) sigsuspend(&before);
  const std::int64_t until = now() + milliseconds * 1'000'000;
  while (now() < until) usleep(1000);
  _exit(0);
}

void executing(const char*, words after) {
  // The timer does not survive execve, an alarm does.
  alarm(static_cast<unsigned>((deadline() - now()) / 1'000'000'000 + 1));
  execvp(*after.next, after.next);
  perror("helper: execvp");
  _exit(127);
}

void kill_group(const char* value, words) {
  const int which = static_cast<int>(number(value));
  if (which != SIGKILL && which != SIGSTOP) signal(which, SIG_IGN);
  setpgid(0, 0);  // a child of a group leads one already; nobody else's is to be hit
  kill(0, which);
  ready("kill-group");
  rest();
}

}  // namespace helper
