// layer 3: the owner has its warden start a child, and waits until that has executed its program.
//
// Errors are negated errnos; -EPIPE means that the warden is dead or stopped.
#pragma once

#include <cerrno>
#include <cstdint>
#include <utility>

#include "../platform/platform.hpp"
#include "deadline.hpp"
#include "group_request.hpp"
#include "group_slot.hpp"
#include "group_spawn.hpp"
#include "group_start.hpp"
#include "wire.hpp"

namespace instance_guard::detail {

/// True if the child needs no longer be waited for: it has executed its program, or has ended.
inline bool has_started(const wire::answer& answer) noexcept {
  platform::process_stat facts;
  const int result = platform::read_process_stat(answer.pid, facts);
  return result == -ESRCH || result == -ENOENT || facts.start_time != answer.start_time || facts.state == 'Z' ||
         facts.executed;
}

/// Waits until the child's word is no longer `value`, at most 250 ms. False: it still is.
/// It looks for a moment unless the child has the same processor: the exec is near, and to be woken on a
/// processor that sleeps takes longer (measured: a spawn of 210 us instead of 300).
inline bool await_word(const start_word& word, int value) noexcept {
  const auto is_starting = [&]() noexcept { return __atomic_load_n(&word.state, __ATOMIC_ACQUIRE) == value; };
  constexpr std::int64_t moment = 120'000;  // ns
  constexpr std::int64_t begin = 30'000;    // until it runs, unless it waits for this processor
  const std::int64_t now = platform::sys::monotonic_now();
  for (std::int64_t passed = 0; is_starting() && passed < moment;) {
    const int there = __atomic_load_n(&word.processor, __ATOMIC_RELAXED);
    if (there < 0 ? passed > begin : there == platform::sys::current_processor()) break;
    for (int i = 0; i < 32 && is_starting(); ++i) platform::sys::relax();
    passed = platform::sys::monotonic_now() - now;
  }
  while (is_starting())
    if (platform::sys::futex_wait(&word.state, value, 250'000'000) == -ETIMEDOUT) return !is_starting();
  return true;
}

/// Waits for the child's word on the board. 0, or -EPIPE.
inline int await_board(const warden_link& link, const wire::answer& answer) noexcept {
  const start_word* board = link.board.load(std::memory_order_relaxed);
  if (board == nullptr || answer.word < 0 || answer.word >= static_cast<int>(board_words)) return -EPIPE;
  while (!await_word(board[answer.word], answer.word_value))
    // A warden that is dead can't have its memory cleared.
    if (!is_healthy(link)) return has_started(answer) ? 0 : -EPIPE;
  return 0;
}

/// Waits for the end of the child's pipe. 0, or -EPIPE. Somebody else may have a copy of the other
/// end for long: a fork in another thread that ran no handlers. So it looks for itself now and then.
inline int await_pipe(const warden_link& link, const wire::answer& answer, int pipe) noexcept {
  for (bool last_look = false;;) {
    pollfd entry = {pipe, POLLIN, 0};
    const int ready = platform::sys::ppoll(&entry, 1, last_look ? 0 : 250'000'000, nullptr);
    if (ready > 0) return 0;
    if (ready < 0) continue;
    if (has_started(answer)) return 0;
    if (last_look) return -EPIPE;
    last_look = !is_healthy(link);
  }
}

/// Waits for the answer to a spawn, and until the child is past its exec. `pipe` is negative where
/// the board tells. 0, or what went wrong: also why the exec failed.
inline int await_start(const warden_link& link, int own, int pipe, wire::answer& answer) noexcept {
  int failed = 0;
  // What the child says of its failure may come before and after the warden's answer.
  for (bool answered = false; !answered;) {
    union {
      wire::header head;
      wire::answer answer;
      wire::failed failed;
    } word = {};
    const long size = await_answer(link, own, &word, sizeof word, deadline(no_limit));
    if (size < 0) return static_cast<int>(size);
    if (word.head.what == wire::kind::failed) {
      failed = word.failed.error;
      continue;
    }
    answer = word.answer;
    answered = true;
  }
  if (answer.credentials_changed) return -EKEYREJECTED;
  if (answer.error != 0) return -answer.error;
  if (failed == 0) {
    const int result = pipe < 0 ? await_board(link, answer) : await_pipe(link, answer, pipe);
    if (result < 0) return result;
    wire::failed word;
    wire::received got;
    wire::receive(own, &word, sizeof word, got, MSG_PEEK);
    if (got.size == static_cast<long>(sizeof word) && word.head.what == wire::kind::failed) failed = word.error;
  }
  return -failed;
}

/// Has a warden start the child that was ordered; `index` becomes whose child it is, `own` the end on
/// which its exit status comes. 0, or what went wrong.
inline int start_by_warden(group_slot& slot, spawn_order& order, file_descriptor& own, int& index,
                           wire::answer& answer) noexcept {
  return with_present_rights(slot, [&](const warden_link& link, int number) noexcept {
    file_descriptor end;
    file_descriptor pipe;
    int result = order.send(link, end, pipe);
    if (result == 0) result = await_start(link, end.get(), pipe.get(), answer);
    if (result < 0) return result;
    own = std::move(end);
    index = number;
    return 0;
  });
}

}  // namespace instance_guard::detail
