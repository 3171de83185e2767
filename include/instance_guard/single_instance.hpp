// layer 5: the guard for main(): this program exists once, and its children die with it.
//
//   int main() {
//     auto guard = instance_guard::single_instance::acquire_or_exit("shiva");
//     guard.spawn({"feed", "--ws"});
//     while (trade()) guard.verify();
//   }
//
// A second start, by whatever route, is refused with a message that names the first. However
// the program ends (return, exit, a signal, kill -9, a crash), its children end with it, and
// the name is not free before the last of them is dead. What it can't promise on a host is
// found by `instance-guard doctor` and written down in docs/reliability.md.
//
// Threads: all members may be called from any thread, except that moving, destroying and
// release() need the object for themselves. Acquire early: before threads exist the mark for
// strays can be put into the environment (setenv beside another thread's getenv crashes).
// fork: the child has no share in the guard; its copy of the object does nothing.
// Signals: stop_requested() and request_stop() may be called from a handler.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "detail/everything.hpp"
#include "detail/owned.hpp"
#include "detail/refusal_text.hpp"
#include "detail/stray_control_group.hpp"
#include "detail/stray_mark.hpp"
#include "detail/stray_sweep.hpp"
#include "error.hpp"
#include "pid_lockfile_class.hpp"
#include "process_group.hpp"
#include "signal_cleanup.hpp"

namespace instance_guard {

/// Which processes end with the guard.
enum class reach {
  spawned,    ///< those started through it, with all their descendants: airtight
  strays,     ///< and, as far as can be proven, what the program started by itself
  everything  ///< the caller becomes the warden, the program goes on in a child: airtight for all.
              ///< The pid is then not the one that was started. Only before threads exist.
};

struct single_instance_options {
  lock_options lock = {};
  group_options children = {};
  cleanup_options signals = {};
  reach ends = reach::strays;
  /// More names, held with the first: all or none. Taken in sorted order, so that two programs
  /// with the same names can't block each other.
  std::vector<std::string> also_hold = {};
  /// What acquire_or_exit exits with when refused: EX_TEMPFAIL. Some supervisors want 0. From 0 to
  /// 255: of any other number the lowest eight bits count, exit(3).
  int conflict_exit_code = 75;
};

/// True if it was another instance that stood in the way: already_running, still_cleaning_up or
/// managed_holder. Anything else is a fault.
bool is_conflict(std::error_code why) noexcept;

class [[nodiscard]] single_instance {
 public:
  /// Owns nothing.
  single_instance() noexcept = default;
  single_instance(single_instance&& other) noexcept { *this = std::move(other); }
  single_instance& operator=(single_instance&& other) noexcept {
    if (this == &other) return *this;
    release();
    locks_ = std::move(other.locks_);
    group_ = std::move(other.group_);
    signals_ = std::move(other.signals_);
    holder_ = std::move(other.holder_);
    recovered_from_ = std::move(other.recovered_from_);
    explanation_ = std::move(other.explanation_);
    refused_name_ = std::move(other.refused_name_);
    mark_ = other.mark_;
    other.mark_ = {};
    mark_text_ = std::move(other.mark_text_);
    ends_ = other.ends_;
    owner_ = std::exchange(other.owner_, 0);
    return *this;
  }
  ~single_instance() { release(); }

  /// Takes the name, or fails and changes nothing. Errors: already_running, still_cleaning_up,
  /// managed_holder (see holder()); invalid_name, unsafe_directory, network_file_system,
  /// threads_running, timed_out; of the system, e.g. permission_denied, no_space_on_device,
  /// too_many_files_open. explanation() says which path and what helps.
  static single_instance acquire(std::string_view name, const single_instance_options& options,
                                 std::error_code& ec) noexcept;
  static single_instance acquire(std::string_view name, std::error_code& ec) noexcept;
#if INSTANCE_GUARD_EXCEPTIONS
  /// Throws instance_guard::already_running, else std::system_error.
  static single_instance acquire(std::string_view name, const single_instance_options& options = {});
#endif

  /// As acquire. When refused it says on stderr who holds the name, since when, from where and
  /// what to do, and exits with options.conflict_exit_code; on any other fault it says path and
  /// cure, and exits with 73 (EX_CANTCREAT). While it waits for children of a killed predecessor
  /// it says so, on a terminal; once started it says that the last run did not end cleanly.
  static single_instance acquire_or_exit(std::string_view name, const single_instance_options& options = {}) noexcept;

  /// What acquire_or_exit says before it exits with `exit_code`, for a program that goes about it in
  /// its own way: `guard = acquire(name, options, why)` has failed. Several lines for a terminal.
  std::string failure_text(std::string_view name, std::error_code why, const single_instance_options& options,
                           int exit_code, bool terminal) const;

  /// True while it owns the name.
  explicit operator bool() const noexcept { return owner_ != 0 && locks_.size() != 0 && locks_[0].owns_lock(); }

  /// Who refused us; empty if nobody did, or the holder's record can't be read.
  const std::optional<lock_record>& holder() const noexcept { return holder_; }
  /// The last holder of the name, if it did not end cleanly.
  const std::optional<lock_record>& recovered_from() const noexcept { return recovered_from_; }
  /// For people: what failed, the path, and what helps. Empty after success.
  const std::string& explanation() const noexcept { return explanation_; }

  /// Call it before each order: still the one holder of every name, and the warden alive.
  /// Two system calls for the first name, one for each further one. Errors: lock_lost,
  /// warden_lost. A lock file that somebody removed is put back.
  void verify(std::error_code& ec) noexcept {
    ec.clear();
    if (!*this) {
      ec = errc::lock_lost;
      return;
    }
    for (std::size_t i = 0; i < locks_.size(); ++i) {
      pid_lockfile& lock = locks_[i];
      lock.verify(ec);
      if (ec) return;
    }
  }

  /// Starts a program that ends with the guard; see process_group::spawn.
  child spawn(const std::vector<std::string>& arguments, const spawn_options& options, std::error_code& ec) noexcept {
    return group_.spawn(arguments, options, ec);
  }
  child spawn(const std::vector<std::string>& arguments, std::error_code& ec) noexcept {
    return group_.spawn(arguments, spawn_options{}, ec);
  }
  /// Starts a program, waits for it, ends what it left behind; see process_group::run.
  run_result run(const std::vector<std::string>& arguments, const run_options& options, std::error_code& ec) noexcept {
    return group_.run(arguments, options, ec);
  }
  run_result run(const std::vector<std::string>& arguments, std::error_code& ec) noexcept {
    return group_.run(arguments, run_options{}, ec);
  }

  /// Takes one more name (the wallet, once the configuration is read) and holds it as long as
  /// the first. Errors as acquire; on failure what is held stays held.
  void also_hold(std::string_view name, const lock_options& options, std::error_code& ec) noexcept;
  void also_hold(std::string_view name, std::error_code& ec) noexcept { also_hold(name, lock_options{}, ec); }

#if INSTANCE_GUARD_EXCEPTIONS
  void verify() {
    std::error_code ec;
    verify(ec);
    if (ec) throw std::system_error(ec, *this ? locks_[0].path().string() : "no guard");
  }
  child spawn(const std::vector<std::string>& arguments, const spawn_options& options = {}) {
    return group_.spawn(arguments, options);
  }
  run_result run(const std::vector<std::string>& arguments, const run_options& options = {}) {
    return group_.run(arguments, options);
  }
  void also_hold(std::string_view name, const lock_options& options = {}) {
    std::error_code ec;
    also_hold(name, options, ec);
    if (ec) raise(name, ec, holder_, explanation_);
  }
#endif

  /// True once a signal (options.signals.graceful) or request_stop() asked the program to stop.
  bool stop_requested() const noexcept { return signals_.stop_requested(); }
  void request_stop() noexcept { signals_.request_stop(); }
  /// Sleeps until a stop is requested; false when the time passed first:
  /// `while (!guard.wait_for_stop(100ms)) tick();`
  bool wait_for_stop(std::chrono::milliseconds limit = no_limit) const noexcept {
    return signals_.wait_for_stop(limit);
  }
  /// Readable once a stop is requested: for poll, epoll, Asio. Borrowed; never read from it.
  int stop_fd() const noexcept { return signals_.stop_fd(); }

  /// Goes on in the background: as a child of init, in a session of its own without a terminal,
  /// in "/", with stdin, stdout and stderr on /dev/null. Names, children and guard come along;
  /// at no moment are they nobody's. The first process ends with exit code 0 once the new one has
  /// taken everything over, and without running exit handlers. Returns in the new process.
  /// Errors, in the first process, which then still owns everything: threads_running (fork would
  /// leave them behind); function_not_supported with reach::everything; of fork(2) and pipe(2).
  /// Other locks and groups of the program come along as well.
  void daemonize(std::error_code& ec) noexcept;
#if INSTANCE_GUARD_EXCEPTIONS
  void daemonize() {
    std::error_code ec;
    daemonize(ec);
    if (ec) throw std::system_error(ec, "daemonize");
  }
#endif

  /// Ends the children (stop signal, grace, SIGKILL), then frees the names, then puts the signal
  /// dispositions back. Takes at most the grace and 10 s. Does nothing the second time, or in a
  /// forked child.
  void release() noexcept;

  process_group& children() noexcept { return group_; }
  pid_lockfile& lockfile() noexcept {
    static pid_lockfile none;
    return locks_.size() == 0 ? none : locks_[0];
  }

 private:
  void take_locks(std::vector<std::string> names, const lock_options& options, std::error_code& ec);
  void keep(pid_lockfile& lock, std::error_code& ec);
  static void sweep(pid_lockfile& lock, std::error_code& ec);
  void start(std::string_view name, const single_instance_options& options, std::error_code& ec);
  void undo() noexcept;
  void take_over() noexcept;
#if INSTANCE_GUARD_EXCEPTIONS
  [[noreturn]] static void raise(std::string_view name, std::error_code ec, const std::optional<lock_record>& holder,
                                 const std::string& explanation);
#endif

  detail::owned_array<pid_lockfile> locks_;  // the first is the name's, the others also_hold's
  process_group group_{nullptr};
  signal_cleanup signals_{nullptr};
  std::optional<lock_record> holder_;
  std::optional<lock_record> recovered_from_;
  std::string explanation_;
  std::string refused_name_;  // the one of several that was not to be had
  detail::stray_mark mark_;
  std::string mark_text_;  // what the record keeps of it
  reach ends_ = reach::strays;
  pid_t owner_ = 0;
};

}  // namespace instance_guard

#include "detail/single_instance_daemonize.hpp"  // IWYU pragma: export
#include "detail/single_instance_start.hpp"      // IWYU pragma: export
