// The helper program's words, and what all of them share.
#include "helper.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <unistd.h>

namespace helper {
namespace {

struct entry {
  std::string_view word;
  behaviour run;
  const char* what;
};

constexpr entry table[] = {
    // modifiers
    {"cap", cap, "=SECONDS  ends after this, instead of after 60 s"},
    {"say", say_word, "=TEXT  prints it"},
    {"umask", umask_word, "=OCTAL"},
    {"delay", delayed, "=MS  waits first"},
    {"pgrp", pgrp, "leads a process group of its own"},
    {"setsid", new_session, "a child in a session of its own goes on; the parent stays"},
    {"daemon", daemonized, "double fork with setsid; both parents exit"},
    {"daemon3", daemon_of_libc, "daemon(3), in its streams"},
    {"fork", forked, "a child goes on; the parent stays"},
    {"leave", left, "a child goes on; the parent exits 0"},
    {"turned", turned, "the first word: a child goes on; the parent executes this program, to sleep"},
    {"chain", chain, "=N  N children deep, the last goes on; the others stay"},
    {"fan", fan, "=N  N children go on; the parent stays"},
    {"ignore", ignoring, "ignores every signal"},
    {"block", blocking, "blocks every signal"},
    {"handle", handling, "catches every signal and does nothing"},
    {"closed", closed, "says ready, then closes every descriptor"},
    {"cleared", cleared, "executes itself with an empty environment"},
    {"scrubbed", scrubbed, "overwrites its environment without executing"},
    {"subreaper", subreaper, "adopts its orphaned descendants and never reaps"},
    {"undying", undying, "clears its parent-death signal"},
    {"pdeathsig", parent_death_signal, "=N  sets it"},
    {"renamed", renamed, "=NAME  other command line and name"},
    {"undumpable", undumpable, "not dumpable: /proc shows little of it"},
    {"headless", headless, "its main thread ends, another goes on"},
    // ends
    {"sleep", sleeping, "does nothing"},
    {"exit", exiting, "=N"},
    {"signal", signalled, "=N  dies by it"},
    {"stopped", stopped, "stops itself"},
    {"spin", spinning, "burns processor time"},
    {"witness", witness, "=FILE  writes the monotonic time into it each millisecond (8 bytes)"},
    {"write", writing, "=N  N bytes of 'x' to stdout, exit 0"},
    {"write-err", writing_err, "=N  N bytes of 'y' to stderr, exit 0"},
    {"echo", echo, "stdin to stdout, exit 0"},
    {"until-eof", until_eof, "reads stdin to its end, exit 0"},
    {"flood", flooding, "writes garbage into every descriptor it was given above 2, then stays"},
    {"lease", lease, "=FILE  makes each open (and execve) of it hang, for up to 45 s"},
    {"slow-term", slow_term, "=MS  on SIGTERM exits 0 after MS"},
    {"exec", executing, "PROGRAM ARGUMENT...  becomes another program"},
    {"kill-group", kill_group, "=N  sends N to its own process group, stays if it can"},
    {"runner", runner, "=N  N chains of processes that fork and exit as fast as they can"},
    {"hydra", hydra, "=N  forks two more of its kind on each SIGTERM, N in all"},
    {"bomb", bomb, "=N  forks as fast as it can, N in all"},
    {"bystander", bystander, "a crowd of children that exit 0, until SIGUSR1; exit 1 if one did not"},
    {"harass", harass, "=NAME  stops the processes of that name again and again"},
    {"broker", broker, "=FIFO WORD...  per environment written into FIFO, a child with it"},
    {"show", show, "prints what it has inherited"},
};

std::int64_t deadline_at = 0;
constexpr char deadline_word[] = "--deadline=";

}  // namespace

std::int64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

std::int64_t deadline() { return deadline_at; }

void shorten(std::int64_t nanoseconds) {
  const std::int64_t at = now() + nanoseconds;
  if (at < deadline_at) deadline_at = at;
  start_timer();
}

void start_timer() {
  static timer_t timer;
  static pid_t owner = 0;
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(deadline_at / 1'000'000'000);
  when.it_value.tv_nsec = static_cast<long>(deadline_at % 1'000'000'000);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  // A timer belongs to one process: it is gone after fork and after exec.
  if (owner != getpid() && timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
    perror("helper: timer_create");
    _exit(71);
  }
  owner = getpid();
  timer_settime(timer, TIMER_ABSTIME, &when, nullptr);
}

int fork_capped() {
  const pid_t child = fork();
  if (child < 0) {
    perror("helper: fork");
    _exit(71);
  }
  if (child == 0) start_timer();
  return child;
}

void rest() {
  for (;;) pause();
}

void say(const char* format, ...) {
  char line[4096];
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (size < 0) return;
  if (size > static_cast<int>(sizeof line) - 2) size = sizeof line - 2;
  line[size++] = '\n';
  [[maybe_unused]] const ssize_t written = write(1, line, static_cast<std::size_t>(size));
}

void ready(const char* end) { say("ready pid=%d end=%s", getpid(), end); }

long number(const char* value) {
  char* end = nullptr;
  const long result = value == nullptr ? 0 : strtol(value, &end, 0);
  if (value == nullptr || end == value || *end != '\0') {
    fprintf(stderr, "helper: not a number: %s\n", value == nullptr ? "(none)" : value);
    _exit(64);
  }
  return result;
}

void execute_self_cleared(words what) {
  std::string at = deadline_word + std::to_string(deadline_at);
  char name[] = "helper";
  char* arguments[64] = {name, at.data()};
  for (std::size_t i = 2; i < 63 && !what.empty(); ++i, what = what.rest()) arguments[i] = *what.next;
  char* nothing[] = {nullptr};
  execve("/proc/self/exe", arguments, nothing);
  perror("helper: execve");
  _exit(126);
}

void proceed(words what) {
  if (what.empty()) exiting("0", what);
  const std::string_view word = *what.next;
  const std::size_t equals = word.find('=');
  const char* value = equals == word.npos ? nullptr : *what.next + equals + 1;
  for (const entry& each : table)
    if (each.word == word.substr(0, equals)) {
      each.run(value, what.rest());
      _exit(70);  // a word must not come back
    }
  fprintf(stderr, "helper: no such word: %s\n", *what.next);
  _exit(64);
}

}  // namespace helper

int main(int count, char** arguments) {
  using namespace helper;
  words what{arguments + (count > 0 ? 1 : 0)};
  if (what.empty()) {
    for (const entry& each : table)
      printf("%-12.*s %s\n", static_cast<int>(each.word.size()), each.word.data(), each.what);
    return 64;
  }
  deadline_at = now() + 60'000'000'000;
  const char* inherited = getenv("INSTANCE_GUARD_TEST_DEADLINE");
  if (strncmp(*what.next, deadline_word, sizeof deadline_word - 1) == 0) {
    inherited = *what.next + sizeof deadline_word - 1;
    what = what.rest();
  }
  if (inherited != nullptr && strtoll(inherited, nullptr, 10) < deadline_at)
    deadline_at = strtoll(inherited, nullptr, 10);
  start_timer();
  proceed(what);
}
