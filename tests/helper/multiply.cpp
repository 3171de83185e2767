// Words that make more of their kind. Each has its own bound, whatever the code under test does.
#include "helper.hpp"

#include <atomic>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace helper {
namespace {

/// Shared by all descendants of a word, so that a bound holds for all of them together.
std::atomic<long>& shared_counter() {
  static void* memory =
      mmap(nullptr, sizeof(std::atomic<long>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) _exit(71);
  return *static_cast<std::atomic<long>*>(memory);
}

/// False once `limit` processes have been counted.
bool one_more(long limit) { return shared_counter().fetch_add(1) < limit; }

}  // namespace

void runner(const char* value, words) {
  shorten(20'000'000'000);
  for (long chains = value == nullptr ? 1 : number(value); chains > 0; --chains) {
    if (fork() != 0) continue;
    if (chains == 1) ready("runner");
    // No timer in here: the chain looks at the clock at each step.
    while (now() < deadline()) {
      const pid_t child = fork();
      if (child > 0) _exit(0);
      if (child < 0) usleep(1000);
    }
    _exit(0);
  }
  rest();
}

namespace {
volatile sig_atomic_t terms = 0;
}

void hydra(const char* value, words) {
  const long limit = value == nullptr ? 50 : number(value);
  shared_counter().store(1);
  struct sigaction action {};
  action.sa_handler = [](int) { terms = terms + 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &before);
  ready("hydra");
  for (;;) {
    sigsuspend(&before);
    while (terms > 0) {
      terms = terms - 1;
      for (int head = 0; head < 2; ++head)
        if (one_more(limit) && fork_capped() == 0) {
          terms = 0;
          break;
        }
    }
  }
}

void bomb(const char* value, words) {
  const long limit = number(value);
  shorten(20'000'000'000);
  shared_counter().store(1);
  ready("bomb");
  while (one_more(limit)) {
    const pid_t child = fork();
    if (child == 0) start_timer();
    if (child < 0) usleep(1000);
  }
  rest();
}

namespace {
volatile sig_atomic_t told_to_end = 0;
}

void bystander(const char*, words) {
  constexpr int crowd = 60;
  struct sigaction action {};
  action.sa_handler = [](int) { told_to_end = 1; };
  sigaction(SIGUSR1, &action, nullptr);
  ready("bystander");
  long children = 0;
  for (int living = 0; told_to_end == 0 || living > 0;) {
    while (told_to_end == 0 && living < crowd) {
      const pid_t child = fork();
      if (child == 0) {
        for (const std::int64_t end = now() + (1 + children % 5) * 1'000'000; now() < end;) usleep(500);
        _exit(0);
      }
      if (child < 0) break;
      ++living;
      ++children;
    }
    int status = 0;
    for (pid_t child; (child = waitpid(-1, &status, WNOHANG)) > 0; --living)
      if (status != 0) {
        say("hurt: child %d, status %#x", child, static_cast<unsigned>(status));
        _exit(1);
      }
    usleep(200);
  }
  say("unhurt: %ld children", children);
  _exit(0);
}

}  // namespace helper
