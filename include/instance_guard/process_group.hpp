// layer 4: processes that end as one, however deep they hide and however their owner ends.
//
//   process_group group;
//   child feed = group.spawn({"feed", "--ws"});
//   ...
//   group.terminate();                       // SIGTERM, 5 s of grace, SIGKILL until nothing is left
//
// Each group has a warden: a small process, started with the group, that is the parent of every
// child and the reaper of all their descendants (PR_SET_CHILD_SUBREAPER, prctl(2)). It ends them
// when the group is destroyed, and when the owner ends in any other way: exit, a crash, kill -9.
// What called setsid, forked twice, ignores SIGTERM or is stopped is found all the same.
//
// A child is as if the owner had started it at that moment: its user and rights, environment,
// directory, umask, limits, niceness, processors, ignored and blocked signals. It has a process
// group of its own, is in the warden's session, and has 0, 1 and 2 open, nothing else.
//
// Threads: everything may be called from any thread, except that moving and destroying need the
// object for themselves. fork: the copy in the child has no group, and does nothing. exec: the
// group ends. Signals: nothing here may be called in a handler; see signal_cleanup.hpp.
// The program's own children, waitpid(-1) and SIGCHLD are not touched: the warden sends none.
//
// Not ended: a process that gained rights through a setuid program (see
// group_options::no_new_privileges), as long as it can't be signalled: reports name it. And what
// has been handed to somebody else's process: a service that is asked to start something.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "detail/group_members.hpp"
#include "detail/group_slot.hpp"
#include "detail/group_spawn.hpp"
#include "detail/group_start.hpp"
#include "detail/spawn_text.hpp"
#include "detail/stray_mark.hpp"
#include "error.hpp"
#include "file_descriptor.hpp"
#include "pid_lockfile_class.hpp"
#include "process_group_types.hpp"
#include "process_identity.hpp"

namespace instance_guard {

class process_group;
namespace detail {
process_group become_child_of_warden(const group_options& options, std::error_code& ec) noexcept;
}

/// One process that was started through a group. Move-only. Dropping it does not end the process:
/// its group does. Each handle costs the owner one descriptor, and one for each pipe.
class child {
 public:
  child() noexcept = default;

  /// True if it was started.
  explicit operator bool() const noexcept { return static_cast<bool>(channel_); }
  process_identity id() const noexcept { return id_; }

  /// Readable once the process has ended: for poll, epoll, Asio. Borrowed; never read from it.
  int exit_fd() const noexcept { return channel_.get(); }

  /// Waits until it has ended, and says how. May be called again, and by several threads.
  /// Errors: warden_lost (then the child was ended as well); invalid_argument for no child.
  exit_status wait(std::error_code& ec) noexcept {
    const auto status = wait_for(no_limit, ec);
    return status ? *status : exit_status();
  }
  /// Empty when the time passed first, or on an error.
  std::optional<exit_status> wait_for(std::chrono::milliseconds limit, std::error_code& ec) noexcept;

  /// With spawn_options::same_process_group exit_fd is also readable when the process has stopped.
  /// This takes note: the signal that stopped it, 0 if it did not. By one thread only.
  int take_stop() noexcept;

  /// Sends a signal to its POSIX process group: itself and what it started, unless that left the
  /// group. Never to anybody else. Errors: no_such_process once it has ended,
  /// operation_not_permitted, invalid_argument, warden_lost, credentials_changed.
  void signal(int number, std::error_code& ec) noexcept;

#if INSTANCE_GUARD_EXCEPTIONS
  exit_status wait() {
    std::error_code ec;
    const exit_status status = wait(ec);
    if (ec) throw std::system_error(ec, "waiting for a child");
    return status;
  }
  std::optional<exit_status> wait_for(std::chrono::milliseconds limit) {
    std::error_code ec;
    const auto status = wait_for(limit, ec);
    if (ec) throw std::system_error(ec, "waiting for a child");
    return status;
  }
  void signal(int number) {
    std::error_code ec;
    signal(number, ec);
    if (ec) throw std::system_error(ec, "signal to a child");
  }
#endif

  /// The owner's ends of piped streams; empty where the stream leads elsewhere.
  file_descriptor& in() noexcept { return ends_[0]; }
  file_descriptor& out() noexcept { return ends_[1]; }
  file_descriptor& err() noexcept { return ends_[2]; }

 private:
  friend class process_group;

  /// The warden that it belongs to, if that group still exists.
  const detail::warden_link& link() const noexcept;

  file_descriptor channel_;
  file_descriptor ends_[3];
  process_identity id_;
  std::uint64_t token_ = 0;
  int slot_ = -1;
  unsigned generation_ = 0;
  int link_ = 0;
};

/// A set of processes that ends as one.
class [[nodiscard]] process_group {
 public:
  /// Starts a warden. Errors: too_many_files_open, resource_unavailable_try_again (processes, or
  /// more than 256 groups), not_enough_memory, function_not_supported (a system that can't keep
  /// the promise: no subreaper, no /proc), permission_denied; invalid_argument for a stop_signal that is
  /// no signal.
  process_group(const group_options& options, std::error_code& ec) noexcept { start(options, nullptr, ec); }
  explicit process_group(std::error_code& ec) noexcept { start({}, nullptr, ec); }
#if INSTANCE_GUARD_EXCEPTIONS
  explicit process_group(const group_options& options = {}) {
    std::error_code ec;
    start(options, nullptr, ec);
    if (ec) throw std::system_error(ec, "starting a process group");
  }
#endif
  /// No group: each call fails with invalid_argument.
  template <typename Nothing>
  requires std::is_null_pointer_v<Nothing>  // not for {}, which are options
  explicit process_group(Nothing) noexcept {}

  process_group(process_group&& other) noexcept
      : slot_(std::exchange(other.slot_, -1)), generation_(other.generation_), options_(other.options_) {}
  process_group& operator=(process_group&& other) noexcept {
    if (this == &other) return *this;
    end();
    slot_ = std::exchange(other.slot_, -1);
    generation_ = other.generation_;
    options_ = other.options_;
    return *this;
  }
  /// Ends every process in it: stop_signal and SIGCONT, the grace, SIGKILL until nothing is left.
  /// Takes no longer than it takes, and at most the grace and 10 s.
  ~process_group() { end(); }

  explicit operator bool() const noexcept { return slot() != nullptr; }

  /// Starts a program: found in PATH if it has no slash. Returns once it runs, or has failed to.
  /// Errors: those of execve(2) (no_such_file_or_directory, permission_denied, ...), of opening a
  /// stream; argument_list_too_long, too_many_files_open, resource_unavailable_try_again;
  /// invalid_argument (no program, a NUL); operation_canceled while the group is being ended;
  /// warden_lost, also for a stopped one: the child is not started later either;
  /// credentials_changed if the caller gave up rights too often (eight times), or can't be looked at
  /// any more, or has unshared its pid namespace.
  child spawn(const std::vector<std::string>& arguments, const spawn_options& options, std::error_code& ec) noexcept;
  child spawn(const std::vector<std::string>& arguments, std::error_code& ec) noexcept {
    return spawn(arguments, spawn_options{}, ec);
  }

  /// Starts a program, waits for it, then ends what it left behind. Errors: as spawn and nested.
  run_result run(const std::vector<std::string>& arguments, const run_options& options, std::error_code& ec) noexcept;
  run_result run(const std::vector<std::string>& arguments, std::error_code& ec) noexcept {
    return run(arguments, run_options{}, ec);
  }

  /// A group within this one: ends with it, or earlier. Its warden is small, however large the
  /// program has grown. Errors: as the constructor, and those of asking the warden.
  process_group nested(const group_options& options, std::error_code& ec) noexcept;
  process_group nested(std::error_code& ec) noexcept { return nested(group_options{}, ec); }

  /// Ends every process, as the destructor; the group can be used again afterwards. While it
  /// lasts, spawn fails with operation_canceled. If something can't be ended, the report names it.
  /// Errors: warden_lost; too_many_files_open: the answer needs a descriptor.
  termination_report terminate(std::chrono::milliseconds grace, std::error_code& ec) noexcept;
  termination_report terminate(std::error_code& ec) noexcept { return terminate(options_.grace, ec); }

  /// Waits until every descendant has ended, spared ones aside. False when the time passed first. With
  /// 0 ms it asks once: true if nobody is left now.
  /// Errors: warden_lost, too_many_files_open.
  bool wait_idle(std::chrono::milliseconds limit, std::error_code& ec) noexcept;
  bool wait_idle(std::error_code& ec) noexcept { return wait_idle(no_limit, ec); }

  /// From now on the name is not free before this group is empty, whatever becomes of the owner.
  /// Errors: invalid_argument for a lock that isn't held; no_space_on_device: 64 already. Of the system, when
  /// the record can't name the warden: the name is kept all the same.
  void keep_locked(const pid_lockfile& lock, std::error_code& ec) noexcept;

  /// Every process of the group now, oldest first; wardens of nested groups are left out.
  std::vector<process_identity> members(std::error_code& ec) const noexcept;

  /// The warden lives and is not stopped.
  bool warden_alive() const noexcept;
  /// The warden that starts children now.
  process_identity warden() const noexcept;
  const group_options& options() const noexcept { return options_; }

  /// For single_instance: what children carry, and by what strays are told; with `strays` they
  /// end with the owner.
  void mark(const detail::stray_mark& mark, const detail::stray_target& target, bool strays,
            std::error_code& ec) noexcept;

#if INSTANCE_GUARD_EXCEPTIONS
  child spawn(const std::vector<std::string>& arguments, const spawn_options& options = {}) {
    std::error_code ec;
    child result = spawn(arguments, options, ec);
    if (ec) throw std::system_error(ec, detail::spawn_text(arguments, options));
    return result;
  }
  /// What run_options::on_output throws comes through.
  run_result run(const std::vector<std::string>& arguments, const run_options& options = {});
  process_group nested(const group_options& options = {}) {
    std::error_code ec;
    process_group result = nested(options, ec);
    if (ec) throw std::system_error(ec, "starting a nested process group");
    return result;
  }
  termination_report terminate(std::chrono::milliseconds grace) {
    std::error_code ec;
    termination_report report = terminate(grace, ec);
    if (ec) throw std::system_error(ec, "ending a process group");
    return report;
  }
  termination_report terminate() { return terminate(options_.grace); }
  bool wait_idle(std::chrono::milliseconds limit = no_limit) {
    std::error_code ec;
    const bool idle = wait_idle(limit, ec);
    if (ec) throw std::system_error(ec, "waiting for a process group");
    return idle;
  }
  void keep_locked(const pid_lockfile& lock) {
    std::error_code ec;
    keep_locked(lock, ec);
    if (ec) throw std::system_error(ec, lock.path().empty() ? "no lock" : lock.path().string());
  }
  std::vector<process_identity> members() const {
    std::error_code ec;
    std::vector<process_identity> result = members(ec);
    if (ec) throw std::system_error(ec, "listing a process group");
    return result;
  }
#endif

 private:
  friend class child;
  friend process_group detail::become_child_of_warden(const group_options& options, std::error_code& ec) noexcept;

  /// See detail/everything.hpp.
  void start_above(const group_options& options, std::error_code& ec);
  void start(const group_options& options, const process_group* above, std::error_code& ec) noexcept;
  void end() noexcept;
  /// The group's slot, if it still is this process's.
  detail::group_slot* slot() const noexcept {
    if (slot_ < 0) return nullptr;
    detail::group_slot& mine = detail::group_slots[slot_];
    return mine.generation.load(std::memory_order_relaxed) == generation_ && detail::owned_here(mine) ? &mine : nullptr;
  }

  int slot_ = -1;
  unsigned generation_ = 0;
  group_options options_ = {};
};

}  // namespace instance_guard

#include "detail/group_calls.hpp"  // IWYU pragma: export
