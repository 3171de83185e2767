// layer 2: the request to stop, one for the whole process: a flag and a descriptor.
//
// request() is async-signal-safe; the rest is thread-safe, not for handlers. A forked child has
// a copy of the flag, but never wakes its parent: the descriptor answers to the process that
// opened it.
#pragma once

#include <atomic>
#include <chrono>
#include <system_error>

#include "../file_descriptor.hpp"
#include "../platform/platform.hpp"
#include "deadline.hpp"

namespace instance_guard::detail {

struct stop_state {
  std::atomic<bool> requested{false};
  std::atomic<int> read_end{-1};
  std::atomic<int> write_end{-1};
  std::atomic<pid_t> opened_by{0};

  /// Sets the flag and makes the descriptor readable. Async-signal-safe.
  void request() noexcept {
    requested.store(true, std::memory_order_release);
    const int end = write_end.load(std::memory_order_acquire);
    if (end >= 0 && opened_by.load(std::memory_order_relaxed) == platform::sys::getpid())
      platform::sys::write(end, "", 1);  // full: it is readable already
  }

  /// Opens the descriptor if that has not happened in this process; readable at once when a stop
  /// was requested before. Errors: too_many_files_open.
  void open(std::error_code& ec) noexcept {
    ec.clear();
    const pid_t self = platform::sys::getpid();
    if (read_end.load(std::memory_order_acquire) >= 0 && opened_by.load() == self) return;
    int ends[2];
    const int result = platform::sys::pipe2(ends, O_CLOEXEC | O_NONBLOCK);
    if (result < 0) {
      ec = {-result, std::system_category()};
      return;
    }
    file_descriptor in{ends[0]};
    file_descriptor out{ends[1]};
    if (in.get() < 3) in = duplicate(in.get(), ec);
    if (!ec && out.get() < 3) out = duplicate(out.get(), ec);
    if (ec) return;
    pid_t nobody = opened_by.load();
    if (nobody == self || !opened_by.compare_exchange_strong(nobody, self)) return;  // another thread was first
    // Of a parent's pipe only our copies are closed.
    const int old_in = read_end.exchange(in.release());
    const int old_out = write_end.exchange(out.release());
    if (old_in >= 0) platform::sys::close(old_in);
    if (old_out >= 0) platform::sys::close(old_out);
    if (requested.load(std::memory_order_acquire)) request();
  }

  /// True once a stop was requested; false when the time passed first.
  bool wait_for(std::chrono::milliseconds limit) noexcept {
    const deadline end(limit);
    std::error_code ec;
    open(ec);
    while (!requested.load(std::memory_order_acquire)) {
      std::int64_t rest = end.left();
      if (rest == 0) return false;
      const int descriptor = read_end.load(std::memory_order_acquire);
      // Without a descriptor (none left) there is no event: look again every 10 ms.
      if (descriptor < 0 && (rest < 0 || rest > 10'000'000)) rest = 10'000'000;
      pollfd entry{descriptor, POLLIN, 0};
      platform::sys::ppoll(&entry, 1, rest, nullptr);
    }
    return true;
  }

  /// Forgets an earlier request: a new guard starts.
  void reset() noexcept {
    requested.store(false, std::memory_order_release);
    const int end = read_end.load(std::memory_order_acquire);
    char bytes[64];
    if (end >= 0 && opened_by.load() == platform::sys::getpid())
      while (platform::sys::read(end, bytes, sizeof bytes) > 0) {
      }
  }
};

inline constinit stop_state the_stop;

}  // namespace instance_guard::detail
