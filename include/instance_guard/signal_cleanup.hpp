// layer 4: cleanup when a signal ends the process, and the request to stop.
//
//   signal_cleanup cleanup({.graceful = true});
//   while (!cleanup.wait_for_stop(100ms)) tick();       // SIGTERM or Ctrl-C: leaves the loop
//
// Without `graceful`, a signal ends the children, removes the lock files and then ends the
// process by that same signal, so that its parent sees the true exit status. With it, the first
// signal only requests a stop; a second one, at least 250 ms later, forces.
//
// Signals are the process's: all cleanups of a process share one stop request, and it is
// graceful while any of them is. Handlers go only over SIG_DFL: a SIGHUP that nohup ignores
// stays ignored, a handler of the program stays. A forked child that gets a signal just ends by
// it. single_instance contains one of these; by itself it covers the groups and locks of the
// program.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "detail/exit_path.hpp"
#include "detail/stop_state.hpp"
#include "detail/without_throwing.hpp"
#include "error.hpp"

namespace instance_guard {

struct cleanup_options {
  /// Which signals end the process cleanly; those whose default is to end it.
  std::vector<int> signals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  /// The first signal only requests a stop; see wait_for_stop().
  bool graceful = false;
};

namespace detail {

/// The dispositions that were replaced; guarded by its mutex, never touched by the handler.
struct signal_registry {
  static constexpr int count = 65;
  std::mutex mutex;
  std::array<int, count> users = {};
  std::array<struct sigaction, count> before = {};
  int cleanups = 0;
};
inline constinit signal_registry the_signals;

}  // namespace detail

/// Owns the handlers for some signals. Move-only; thread-safe against other cleanups.
class [[nodiscard]] signal_cleanup {
 public:
  /// Owns nothing.
  template <typename Nothing>
  requires std::is_null_pointer_v<Nothing>  // not for {}, which are options
  explicit signal_cleanup(Nothing) noexcept {}

  /// Installs the handlers, or nothing at all. Errors: invalid_argument for a number that is no
  /// signal, or one that can't be handled (SIGKILL, SIGSTOP); too_many_files_open for the stop
  /// descriptor; not_enough_memory.
  signal_cleanup(const cleanup_options& options, std::error_code& ec) noexcept {
    install(options, ec);
    if (!ec) arm();
  }
  explicit signal_cleanup(std::error_code& ec) noexcept {
    ec.clear();
    detail::without_throwing(ec, [&] { install(cleanup_options(), ec); });
    if (!ec) arm();
  }
#if INSTANCE_GUARD_EXCEPTIONS
  explicit signal_cleanup(const cleanup_options& options = {}) {
    std::error_code ec;
    install(options, ec);
    if (ec) throw std::system_error(ec, "signal_cleanup");
    arm();
  }
#endif

  signal_cleanup(signal_cleanup&& other) noexcept { *this = std::move(other); }
  signal_cleanup& operator=(signal_cleanup&& other) noexcept {
    if (this == &other) return *this;
    release();
    signals_ = std::exchange(other.signals_, 0);
    owner_ = std::exchange(other.owner_, 0);
    graceful_ = std::exchange(other.graceful_, false);
    armed_ = std::exchange(other.armed_, false);
    return *this;
  }
  ~signal_cleanup() { release(); }

  explicit operator bool() const noexcept { return owner_ != 0; }

  /// True once a stop was requested, by a signal or by request_stop().
  bool stop_requested() const noexcept { return detail::the_stop.requested.load(); }

  /// As if the first signal had come. Async-signal-safe.
  void request_stop() noexcept { detail::the_stop.request(); }

  /// Waits for a stop; false when the time passed first.
  bool wait_for_stop(std::chrono::milliseconds limit = no_limit) const noexcept {
    return detail::the_stop.wait_for(limit);
  }

  /// Becomes readable when a stop is requested, for poll, epoll and Asio. Borrowed; never read
  /// from it. -1 where it could not be opened.
  int stop_fd() const noexcept {
    std::error_code ec;
    detail::the_stop.open(ec);
    return detail::the_stop.read_end.load();
  }

  /// Puts the dispositions back that it replaced, where nobody else replaced them meanwhile.
  void release() noexcept {
    const pid_t owner = std::exchange(owner_, 0);
    const std::uint64_t signals = std::exchange(signals_, 0);
    // A forked copy leaves them: its program still expects to be ended by them, and it will be.
    if (owner == 0 || owner != platform::sys::getpid()) return;
    if (std::exchange(armed_, false)) detail::the_exit.armed.fetch_sub(1);
    if (std::exchange(graceful_, false)) detail::the_exit.graceful.fetch_sub(1);
    auto& registry = detail::the_signals;
    const std::lock_guard lock(registry.mutex);
    restore_all(signals);
    --registry.cleanups;
  }

  /// Internal, for single_instance: handlers first, unarmed, then the lock, then arm(). So there
  /// is no moment at which a signal could leave the lock behind, and while it still waits for
  /// the lock a signal ends the process as it would have without a guard.
  void install(const cleanup_options& options, std::error_code& ec) noexcept;
  void arm() noexcept {
    if (owner_ == 0 || armed_) return;
    armed_ = true;
    detail::the_exit.armed.fetch_add(1, std::memory_order_release);
  }

  /// Internal, for daemonize: this process, a copy by fork, goes on as the one that installed them.
  void take_over() noexcept {
    if (owner_ == 0) return;
    owner_ = platform::sys::getpid();
    detail::the_exit.owner = owner_;
    detail::the_stop.opened_by = owner_;
  }

 private:
  static void restore(int number) noexcept {
    auto& registry = detail::the_signals;
    const auto index = static_cast<std::size_t>(number);
    if (registry.users[index] == 0 || --registry.users[index] > 0) return;
    struct sigaction now = {};
    ::sigaction(number, nullptr, &now);
    if (now.sa_handler == &handler) ::sigaction(number, &registry.before[index], nullptr);
  }

  static void restore_all(std::uint64_t signals) noexcept {
    for (int number = 1; number < detail::signal_registry::count; ++number)
      if ((signals & bit(number)) != 0) restore(number);
  }

  static constexpr std::uint64_t bit(int number) noexcept { return std::uint64_t{1} << (number - 1); }

  static void handler(int number) { detail::on_signal(number); }

  std::uint64_t signals_ = 0;  // those that this object has a share in, a bit each
  pid_t owner_ = 0;
  bool graceful_ = false;
  bool armed_ = false;
};

inline void signal_cleanup::install(const cleanup_options& options, std::error_code& ec) noexcept {
  ec.clear();
  release();
  for (const int number : options.signals) {
    if (number < 1 || number >= detail::signal_registry::count || number == SIGKILL || number == SIGSTOP) {
      ec = std::make_error_code(std::errc::invalid_argument);
      return;
    }
  }
  detail::the_stop.open(ec);
  if (ec) return;
  auto& registry = detail::the_signals;
  const std::lock_guard lock(registry.mutex);
  const pid_t self = platform::sys::getpid();
  if (registry.cleanups == 0 || detail::the_exit.owner.load() != self) {
    // The first one, or the first after a fork: what was counted is the parent's.
    if (detail::the_exit.owner.load() != self) {
      registry.cleanups = 0;
      registry.users = {};
      detail::the_exit.armed = 0;
      detail::the_exit.graceful = 0;
    }
    detail::the_exit.owner = self;
    detail::the_exit.first_at = 0;
    detail::the_stop.reset();
  }
  if (!detail::register_at_exit()) {
    ec = std::make_error_code(std::errc::not_enough_memory);
    return;
  }
  owner_ = self;
  graceful_ = options.graceful;
  if (graceful_) detail::the_exit.graceful.fetch_add(1);
  ++registry.cleanups;
  for (const int number : options.signals) {
    if ((signals_ & bit(number)) != 0) continue;  // named twice
    const auto index = static_cast<std::size_t>(number);
    if (registry.users[index] == 0) {
      struct sigaction old = {};
      ::sigaction(number, nullptr, &old);
      const bool ours = old.sa_handler == &handler;  // inherited through fork
      if (old.sa_handler != SIG_DFL && !ours) continue;
      struct sigaction action = {};
      action.sa_handler = &handler;
      action.sa_flags = SA_RESTART | SA_ONSTACK;
      ::sigfillset(&action.sa_mask);
      if (::sigaction(number, &action, nullptr) != 0) {
        ec.assign(errno, std::system_category());
        break;
      }
      registry.before[index] = ours ? registry.before[index] : old;
    }
    ++registry.users[index];
    signals_ |= bit(number);
  }
  if (!ec) return;
  const std::error_code why = ec;
  restore_all(std::exchange(signals_, 0));
  owner_ = 0;
  --registry.cleanups;
  if (std::exchange(graceful_, false)) detail::the_exit.graceful.fetch_sub(1);
  ec = why;
}

}  // namespace instance_guard
