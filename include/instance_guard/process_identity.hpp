// layer 2: a process that can't be mistaken for another, and signals that reach only it.
//
// A pid alone is reused: at boot by the same service order, after a wrap within minutes. An
// identity adds the start time (clock ticks since boot, proc_pid_stat(5)), the boot and the pid
// namespace, in which a pid is unique for good.
//
//   process_identity bot = process_identity::of(pid, ec);
//   process_handle handle = process_handle::open(bot, ec);    // refuses if it is another by now
//   handle.signal(SIGTERM, ec);                               // never reaches anybody else
//
// Thread-safe. Not for signal handlers, unless said so. Copies of an identity stay true after
// fork; self() in the child gives the child.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

#include "detail/deadline.hpp"
#include "detail/text.hpp"
#include "error.hpp"
#include "file_descriptor.hpp"
#include "platform/platform.hpp"

namespace instance_guard {

/// Which process, for good. A default one is nobody.
struct process_identity {
  pid_t pid = 0;
  std::array<unsigned char, 16> boot = {};  ///< all zero: could not be read
  std::uint64_t pid_namespace = 0;          ///< inode of the namespace, 0: could not be read
  std::uint64_t start_time = 0;             ///< clock ticks since boot, 0: could not be read

  /// The calling process. Where the system tells nothing (no /proc), only the pid is set.
  static process_identity self() noexcept;

  /// The process that has this pid now, zombies included, seen from the caller's pid namespace.
  /// Errors: no_such_process; others when the system can't be asked.
  static process_identity of(pid_t pid, std::error_code& ec) noexcept;
#if INSTANCE_GUARD_EXCEPTIONS
  static process_identity of(pid_t pid) {
    std::error_code ec;
    const process_identity result = of(pid, ec);
    if (ec) throw std::system_error(ec, detail::joined({"process ", std::to_string(pid)}));
    return result;
  }
#endif

  /// True if it names a process.
  explicit operator bool() const noexcept { return pid > 0; }

  /// True if pid and start time are known, so that the process can be signalled safely.
  bool complete() const noexcept { return pid > 0 && start_time != 0; }

  /// Equal in every part: the same process, seen from the same namespace.
  bool operator==(const process_identity&) const noexcept = default;
};

namespace detail {

/// The boot id, read once: it can't change while this process lives.
inline std::array<unsigned char, 16> boot_id_now() noexcept {
  static constinit std::atomic<std::uint64_t> half[2] = {};
  std::array<unsigned char, 16> result = {};
  auto put = [&](int index, std::uint64_t value) {
    for (int i = 0; i < 8; ++i)
      result[static_cast<std::size_t>(index * 8 + i)] = static_cast<unsigned char>(value >> (8 * i));
  };
  const std::uint64_t first = half[0].load(std::memory_order_acquire);
  if (first != 0) {
    put(0, first);
    put(1, half[1].load(std::memory_order_relaxed));
    return result;
  }
  unsigned char bytes[16] = {};
  if (!platform::boot_id(bytes)) return result;
  std::uint64_t value[2] = {};
  for (int i = 0; i < 16; ++i) value[i / 8] |= static_cast<std::uint64_t>(bytes[i]) << (8 * (i % 8));
  put(0, value[0]);
  put(1, value[1]);
  half[1].store(value[1], std::memory_order_relaxed);
  half[0].store(value[0], std::memory_order_release);
  return result;
}

/// An answer of platform:: as an error code.
inline std::error_code system_error(int negated_errno) noexcept {
  return {negated_errno == -ENOENT ? ESRCH : -negated_errno, std::system_category()};
}

}  // namespace detail

inline process_identity process_identity::of(pid_t pid, std::error_code& ec) noexcept {
  ec.clear();
  platform::process_stat facts;
  const int result = platform::read_process_stat(pid, facts);
  if (result != 0) {
    ec = detail::system_error(result);
    return {};
  }
  // A process of another pid namespace that shares our /proc has the number we see it by.
  return {pid, detail::boot_id_now(), platform::pid_namespace_of(platform::sys::getpid()), facts.start_time};
}

inline process_identity process_identity::self() noexcept {
  std::error_code ec;
  process_identity result = of(platform::sys::getpid(), ec);
  if (ec) result.pid = platform::sys::getpid();
  return result;
}

/// Lives, by the rules of this library: a zombie is dead, another user's process (EPERM) is
/// alive, a thread id is no process, and an identity of another boot is dead. An identity of
/// another pid namespace can't be judged and counts as alive. When in doubt, alive.
inline bool is_alive(const process_identity& who) noexcept {
  if (who.pid <= 0) return false;
  const auto boot = detail::boot_id_now();
  const std::array<unsigned char, 16> unknown = {};
  if (who.boot != unknown && boot != unknown && who.boot != boot) return false;
  const auto here = platform::pid_namespace_of(platform::sys::getpid());
  if (who.pid_namespace != 0 && here != 0 && who.pid_namespace != here) return true;
  platform::process_stat facts;
  const int result = platform::read_process_stat(who.pid, facts);
  if (result == -ENOENT || result == -ESRCH) {
    // hidepid= hides the processes of others: kill(2) still tells them from none at all. Without
    // /proc it is all there is to ask.
    const int there = platform::sys::kill(who.pid, 0);
    return there == -EPERM || (there == 0 && platform::read_process_stat(platform::sys::getpid(), facts) != 0);
  }
  if (result != 0) return platform::sys::kill(who.pid, 0) != -ESRCH;
  if (who.start_time != 0 && facts.start_time != 0 && facts.start_time != who.start_time) return false;
  // A leader whose main thread has ended is shown as Z as well, while its other threads live.
  const bool ended = (facts.state == 'Z' && facts.threads <= 1) || facts.state == 'X';
  return !ended && platform::is_process(who.pid);
}

namespace detail {

/// Of another pid namespace: the number is, here, somebody else's.
inline bool is_elsewhere(const process_identity& who) noexcept {
  const auto here = platform::pid_namespace_of(platform::sys::getpid());
  return who.pid_namespace != 0 && here != 0 && who.pid_namespace != here;
}

/// Lives, and can be looked at by its number.
inline bool is_alive_here(const process_identity& who) noexcept { return !is_elsewhere(who) && is_alive(who); }

}  // namespace detail

/// A process held so that its pid can't be reused under the hand: a pidfd (pidfd_open(2)), or,
/// where the system has none, a pid whose start time is read again before each use; there a
/// signal can miss its process within some microseconds, never by more.
class [[nodiscard]] process_handle {
 public:
  process_handle() noexcept = default;
  process_handle(process_handle&& other) noexcept : who_(other.who_), descriptor_(std::move(other.descriptor_)) {
    other.who_ = {};
  }
  process_handle& operator=(process_handle&& other) noexcept {
    if (this == &other) return *this;
    who_ = other.who_;
    other.who_ = {};
    descriptor_ = std::move(other.descriptor_);
    return *this;
  }

  /// Errors: no_such_process, also when the pid belongs to another process by now, or to a thread;
  /// not_supported for an identity of another boot or pid namespace, or without a start time.
  static process_handle open(const process_identity& who, std::error_code& ec) noexcept {
    ec.clear();
    process_handle result;
    const process_identity here = process_identity::self();
    if (!who.complete() || who.boot != here.boot || who.pid_namespace != here.pid_namespace) {
      ec = std::make_error_code(std::errc::not_supported);
      return result;
    }
    file_descriptor held{platform::sys::pidfd_open(who.pid)};
    // Read after the pidfd exists: from now on the pid, if it still matches, can't change hands.
    const process_identity now = process_identity::of(who.pid, ec);
    if (ec) return result;
    // Where pidfds are refused nothing else tells a thread: a signal to its id reaches the whole process.
    if (now != who || (!held && !platform::is_process(who.pid))) {
      ec = std::make_error_code(std::errc::no_such_process);
      return result;
    }
    result.who_ = who;
    result.descriptor_ = std::move(held);
    return result;
  }
#if INSTANCE_GUARD_EXCEPTIONS
  static process_handle open(const process_identity& who) {
    std::error_code ec;
    process_handle result = open(who, ec);
    if (ec) throw std::system_error(ec, detail::joined({"process ", std::to_string(who.pid)}));
    return result;
  }
#endif

  explicit operator bool() const noexcept { return static_cast<bool>(who_); }
  const process_identity& id() const noexcept { return who_; }

  /// The pidfd, borrowed, or -1. Readable once the process has ended.
  int descriptor() const noexcept { return descriptor_.get(); }

  /// False once it has ended, also while it is a zombie.
  bool alive() const noexcept {
    if (!who_) return false;
    if (!descriptor_) return is_alive(who_);
    pollfd entry{descriptor_.get(), POLLIN, 0};
    return platform::sys::ppoll(&entry, 1, 0, nullptr) == 0;
  }

  /// Sends a signal to exactly this process; 0 only asks. Errors: no_such_process,
  /// operation_not_permitted, invalid_argument.
  void signal(int number, std::error_code& ec) noexcept {
    ec.clear();
    int result = -ESRCH;
    if (descriptor_) {
      result = platform::sys::pidfd_send_signal(descriptor_.get(), number);
    } else if (who_) {
      platform::process_stat facts;
      if (platform::read_process_stat(who_.pid, facts) == 0 && facts.start_time == who_.start_time)
        result = platform::sys::kill(who_.pid, number);
    }
    if (result < 0) ec = detail::system_error(result);
  }

  /// Waits until it has ended (it may still be a zombie). False when the time passed first.
  bool wait_for(std::chrono::milliseconds limit, std::error_code& ec) noexcept {
    ec.clear();
    const detail::deadline end(limit);
    while (alive()) {
      std::int64_t rest = end.left();
      if (rest == 0) return false;
      // Without a pidfd there is no event to wait for: look again every 10 ms.
      if (!descriptor_ && (rest < 0 || rest > 10'000'000)) rest = 10'000'000;
      pollfd entry{descriptor_.get(), POLLIN, 0};
      const int result = platform::sys::ppoll(&entry, 1, rest, nullptr);
      if (result < 0 && result != -EINTR) {
        ec = detail::system_error(result);
        return false;
      }
    }
    return true;
  }

#if INSTANCE_GUARD_EXCEPTIONS
  void signal(int number) {
    std::error_code ec;
    signal(number, ec);
    if (ec) throw std::system_error(ec, detail::joined({"signal to process ", std::to_string(who_.pid)}));
  }
  bool wait_for(std::chrono::milliseconds limit) {
    std::error_code ec;
    const bool ended = wait_for(limit, ec);
    if (ec) throw std::system_error(ec, detail::joined({"waiting for process ", std::to_string(who_.pid)}));
    return ended;
  }
#endif

 private:
  process_identity who_;
  file_descriptor descriptor_;
};

}  // namespace instance_guard
