// Words that change the process and go on.
#include "helper.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

extern char** environ;

namespace helper {

void cap(const char* value, words after) {
  shorten(number(value) * 1'000'000'000);
  proceed(after);
}

void say_word(const char* value, words after) {
  say("%s", value);
  proceed(after);
}

void umask_word(const char* value, words after) {
  umask(static_cast<mode_t>(strtoul(value, nullptr, 8)));
  proceed(after);
}

void delayed(const char* value, words after) {
  usleep(static_cast<useconds_t>(number(value) * 1000));
  proceed(after);
}

void pgrp(const char*, words after) {
  setpgid(0, 0);
  proceed(after);
}

void forked(const char*, words after) {
  if (fork_capped() == 0) proceed(after);
  rest();
}

void turned(const char*, words after) {
  if (fork_capped() == 0) proceed(after);
  // As long as the words it was started with: what is not at random places is in the same ones.
  char word[64] = "say=";
  for (std::size_t i = 4; i + 1 < sizeof word && i < strlen(after.next[-1]); ++i) word[i] = 'x';
  char end[] = "sleep";
  char* arguments[] = {after.next[-2], word, end, nullptr};
  alarm(60);  // the timer does not survive execve
  execv(arguments[0], arguments);
  perror("helper: execv");
  _exit(126);
}

void left(const char*, words after) {
  if (fork_capped() == 0) proceed(after);
  _exit(0);
}

void new_session(const char*, words after) {
  // A leader of a group can't make a session.
  if (fork_capped() != 0) rest();
  setsid();
  proceed(after);
}

void daemonized(const char*, words after) {
  if (fork_capped() != 0) _exit(0);
  setsid();
  if (fork_capped() != 0) _exit(0);
  if (chdir("/") != 0) _exit(70);
  proceed(after);
}

void daemon_of_libc(const char*, words after) {
  if (daemon(0, 1) != 0) _exit(71);
  start_timer();  // a child does not inherit it
  proceed(after);
}

void chain(const char* value, words after) {
  for (long depth = number(value); depth > 0; --depth)
    if (fork_capped() != 0) rest();
  proceed(after);
}

void fan(const char* value, words after) {
  for (long width = number(value); width > 0; --width)
    if (fork_capped() == 0) proceed(after);
  rest();
}

namespace {
void for_every_signal(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  for (int number = 1; number <= SIGRTMAX; ++number) sigaction(number, &action, nullptr);
}
void do_nothing(int) {}
}  // namespace

void ignoring(const char*, words after) {
  for_every_signal(SIG_IGN);
  proceed(after);
}

void handling(const char*, words after) {
  for_every_signal(do_nothing);
  proceed(after);
}

void blocking(const char*, words after) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  proceed(after);
}

void closed(const char*, words after) {
  ready("closed");
  for (int descriptor = 0; descriptor < 1024; ++descriptor) close(descriptor);
  proceed(after);
}

void cleared(const char*, words after) { execute_self_cleared(after); }

void scrubbed(const char*, words after) {
  for (char** each = environ; *each != nullptr; ++each) memset(*each, 0, strlen(*each));
  *environ = nullptr;
  proceed(after);
}

void subreaper(const char*, words after) {
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (fork_capped() == 0) proceed(after);
  rest();
}

void undying(const char*, words after) {
  prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
  proceed(after);
}

void parent_death_signal(const char* value, words after) {
  prctl(PR_SET_PDEATHSIG, number(value), 0, 0, 0);
  proceed(after);
}

void renamed(const char* value, words after) {
  const char* name = value == nullptr ? "kworker/0:1" : value;
  prctl(PR_SET_NAME, name, 0, 0, 0);
  // The words live in the memory that is overwritten: keep copies.
  static char* copies[64];
  std::size_t count = 0;
  for (words each = after; !each.empty() && count < 63; each = each.rest()) copies[count++] = strdup(*each.next);
  for (words each = after; !each.empty(); each = each.rest()) memset(*each.next, 0, strlen(*each.next));
  proceed({copies});
}

void undumpable(const char*, words after) {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  proceed(after);
}

void headless(const char*, words after) {
  static words later;
  later = after;
  pthread_t thread;
  const auto go_on = [](void*) -> void* {
    // The leader must have gone before anybody is told.
    for (int i = 0; i < 1000; ++i) {
      char path[64] = "/proc/self/stat", text[256] = {};
      if (FILE* file = fopen(path, "r")) {
        [[maybe_unused]] const std::size_t size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
      }
      const char* end = strrchr(text, ')');
      if (end != nullptr && end[1] == ' ' && end[2] == 'Z') break;
      usleep(1000);
    }
    proceed(later);
  };
  if (pthread_create(&thread, nullptr, go_on, nullptr) != 0) _exit(71);
  pthread_exit(nullptr);
}

}  // namespace helper
