// The helper program: one small misbehaviour after the other, chosen by its arguments.
//
//   instance_guard_test_helper setsid ignore fork sleep
//
// Each argument is a word. A *modifier* changes the process and goes on with the words after it,
// in a child where it says so; the last word is an *end*: what the process then does for ever,
// or how it ends. Ends that stay print one line, "ready pid=N end=WORD", in a single write: no
// test has to sleep. The list of words is in main.cpp.
//
// Nothing outlives a failed test: each process has a kernel timer that sends it SIGKILL (also
// when it is stopped or ignores everything), at a time that is handed down over fork and exec.
#pragma once

#include <cstdint>
#include <string_view>

namespace helper {

/// The words that are left; the last is an end.
struct words {
  char** next;

  words rest() const { return {next + 1}; }
  bool empty() const { return *next == nullptr; }
};

/// One word, run with the text after its '=' (null without one) and the words behind it.
/// A modifier calls proceed(); no word returns to its caller before the process is finished.
using behaviour = void (*)(const char* value, words after);

/// Does the next word. Never returns.
[[noreturn]] void proceed(words what);

/// Does nothing until the timer strikes.
[[noreturn]] void rest();

/// "ready pid=N end=WORD", once; a closed stdout is no error.
void ready(const char* end);

/// One line to stdout in a single write.
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// The value as a number; complains and exits 64 if it is none.
long number(const char* value);

/// fork(2), with the timer started again in the child. Exits 71 where fork fails.
int fork_capped();

/// Starts this process's timer.
void start_timer();
/// Monotonic nanoseconds; when this process and its descendants are over, at the latest.
std::int64_t now();
std::int64_t deadline();
/// Brings it forward, not back.
void shorten(std::int64_t nanoseconds);

/// execve of this program with other words and an empty environment, the deadline kept.
[[noreturn]] void execute_self_cleared(words what);

// modifiers.cpp
void cap(const char*, words), say_word(const char*, words), pgrp(const char*, words);
void new_session(const char*, words), daemonized(const char*, words), forked(const char*, words);
void turned(const char*, words), left(const char*, words), daemon_of_libc(const char*, words),
    ignoring(const char*, words), blocking(const char*, words);
void handling(const char*, words), closed(const char*, words), cleared(const char*, words);
void scrubbed(const char*, words), subreaper(const char*, words), undying(const char*, words);
void renamed(const char*, words), undumpable(const char*, words), headless(const char*, words);
void chain(const char*, words), fan(const char*, words), delayed(const char*, words);
void parent_death_signal(const char*, words), umask_word(const char*, words);
// ends.cpp
void sleeping(const char*, words), exiting(const char*, words), signalled(const char*, words);
void stopped(const char*, words), spinning(const char*, words), witness(const char*, words);
void writing(const char*, words), writing_err(const char*, words), echo(const char*, words);
void flooding(const char*, words), lease(const char*, words), slow_term(const char*, words);
void executing(const char*, words), kill_group(const char*, words), until_eof(const char*, words);
// multiply.cpp
void runner(const char*, words), hydra(const char*, words), bomb(const char*, words);
void bystander(const char*, words);
// broker.cpp
void broker(const char*, words);
// harass.cpp
void harass(const char*, words);
// show.cpp
void show(const char*, words);

}  // namespace helper
