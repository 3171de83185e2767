// layer 5: how single_instance takes its names and starts its warden; part of single_instance.hpp.
//
//   (reach::everything: the warden) -> handlers (unarmed) -> locks, sorted -> mark -> warden -> warden keeps the locks
//   -> record
//   -> strays of a dead predecessor -> armed
//
// Whatever fails undoes what was done before it, in the opposite order.
#pragma once

#include "../single_instance.hpp"
#include "lock_replace.hpp"

namespace instance_guard::detail {

/// Why there is no warden, and what helps.
inline std::string warden_fault(std::string_view part, const group_options& options, std::error_code ec) {
  if (!is_signal(options.stop_signal))
    return joined({"children.stop_signal ", std::to_string(options.stop_signal), ": ", ec.message()});
  const char* cure = "";
  if (is(ec, std::errc::function_not_supported))
    cure =
        ": the system refuses what keeps children together, such as PR_SET_CHILD_SUBREAPER"
        "\n  cure     allow it in the sandbox's filter, mount /proc (instance-guard doctor tries it)";
  if (is(ec, std::errc::resource_unavailable_try_again))
    cure = "\n  cure     raise the limit of processes (ulimit -u, pids.max)";
  if (is(ec, std::errc::too_many_files_open)) cure = "\n  cure     close descriptors, or raise their limit (ulimit -n)";
  return joined({part, ": ", ec.message(), cure});
}

}  // namespace instance_guard::detail

namespace instance_guard {

/// Takes all of `names` in sorted order, or none; they are appended in the order given.
inline void single_instance::take_locks(std::vector<std::string> names, const lock_options& options,
                                        std::error_code& ec) {
  detail::owned_array<pid_lockfile> taken(names.size());
  const auto compare = [&](std::size_t one, std::size_t other) {
    const detail::lock_name left(names[one]);
    const detail::lock_name right(names[other]);
    return left.view().compare(right.view());
  };
  detail::owned_array<std::size_t> order(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::size_t at = i;
    for (; at > 0 && compare(i, order[at - 1]) < 0; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::size_t at = order[i];
    // The same name twice is held once.
    if (i > 0 && detail::lock_name(names[at]) && compare(order[i], order[i - 1]) == 0) continue;
    taken[at] = pid_lockfile(names[at], options, ec);
    if (ec) {
      holder_ = std::optional<lock_record>(taken[at].holder());
      explanation_ = taken[at].explanation();
      refused_name_ = names[at];
      return;
    }
  }
  for (std::size_t i = 0; i < taken.size(); ++i)
    if (taken[i]) locks_.push(std::move(taken[i]));
}

/// Gives the lock to the warden and says in its record what marks the strays.
inline void single_instance::keep(pid_lockfile& lock, std::error_code& ec) {
  group_.keep_locked(lock, ec);
  if (ec) return;
  lock_record changes = lock.record();
  changes.mark = mark_text_;
  detail::lock_update_record(lock, std::move(changes), ec);
}

/// Ends what the last holders left, if they were killed together with their wardens.
inline void single_instance::sweep(pid_lockfile& lock, std::error_code& ec) {
  const std::array<killed_holder, 4>& killed = lock.record().unswept;
  if (killed[0].process.pid <= 0) return;
  for (const killed_holder& each : killed) {
    if (each.process.pid <= 0) break;
    detail::dead_owner owner;
    owner.process = each.process;
    owner.mark = each.mark;
    owner.record_user = each.user;
    owner.grace = each.grace;
    // One that had several wardens is there once for each.
    const killed_holder* same = &killed[0];
    while (same != &each && (same->mark != each.mark || same->user != each.user)) ++same;
    if (same == &each) detail::sweep_dead_owner(owner, ec);
    detail::sweep_control_group(each);
  }
  // What can't be looked at can't be ended; the name is ours all the same.
  lock_record changes = lock.record();
  changes.unswept = {};
  detail::lock_update_record(lock, std::move(changes), ec);
  detail::slot_of(lock).has_duty.store(false, std::memory_order_relaxed);
}

inline void single_instance::start(std::string_view name, const single_instance_options& options, std::error_code& ec) {
  std::vector<std::string> names;
  names.push_back(std::string(name));
  for (const std::string& each : options.also_hold) names.push_back(std::string(each));
  ends_ = options.ends;
  // First: everything after it is in another process, which is the owner.
  if (options.ends == reach::everything) {
    group_ = detail::become_child_of_warden(options.children, ec);
    if (ec) {
      explanation_ = detail::warden_fault("reach::everything", options.children, ec);
      return;
    }
  }
  signals_.install(options.signals, ec);
  if (ec) {
    explanation_ = detail::joined({"signal handlers: ", ec.message()});
    return;
  }
  take_locks(std::move(names), options.lock, ec);
  if (ec) return;
  recovered_from_ = std::optional<lock_record>(locks_[0].recovered_from());
  // Without strays only what is started through the guard is marked, for the next start.
  mark_ = detail::make_stray_mark(ec, options.ends == reach::spawned);
  if (ec) {
    explanation_ = detail::joined({"mark for strays: ", ec.message()});
    return;
  }
  const detail::stray_target target = detail::target_of(mark_);
  mark_text_ = detail::mark_text(target);
  if (options.ends != reach::everything) {
    group_ = process_group(options.children, ec);
    if (ec) {
      explanation_ = detail::warden_fault("warden", options.children, ec);
      return;
    }
  }
  group_.mark(mark_, target, options.ends == reach::strays, ec);
  for (std::size_t i = 0; i < locks_.size() && !ec; ++i) keep(locks_[i], ec);
  if (ec) {
    explanation_ = detail::joined({locks_[0].path().native(), ": ", ec.message()});
    return;
  }
  for (std::size_t i = 0; i < locks_.size(); ++i) sweep(locks_[i], ec);
  owner_ = platform::sys::getpid();
  signals_.arm();
}

inline single_instance single_instance::acquire(std::string_view name, const single_instance_options& options,
                                                std::error_code& ec) noexcept {
  ec.clear();
  single_instance result;
  detail::without_throwing(ec, [&] { result.start(name, options, ec); });
  if (ec) result.undo();
  return result;
}

inline single_instance single_instance::acquire(std::string_view name, std::error_code& ec) noexcept {
  ec.clear();
  single_instance result;
  // The options have signals in a vector: also these may not end the program for want of memory.
  detail::without_throwing(ec, [&] { result = acquire(name, single_instance_options(), ec); });
  return result;
}

inline void single_instance::undo() noexcept {
  std::optional<lock_record> holder = std::move(holder_);
  std::string explanation = std::move(explanation_);
  std::string refused = std::move(refused_name_);
  release();
  holder_ = std::move(holder);
  explanation_ = std::move(explanation);
  refused_name_ = std::move(refused);
}

#if INSTANCE_GUARD_EXCEPTIONS
inline single_instance single_instance::acquire(std::string_view name, const single_instance_options& options) {
  std::error_code ec;
  single_instance result = acquire(name, options, ec);
  if (ec) raise(name, ec, result.holder_, result.explanation_);
  return result;
}

inline void single_instance::raise(std::string_view name, std::error_code ec, const std::optional<lock_record>& holder,
                                   const std::string& explanation) {
  const std::string what = explanation.empty() ? std::string(name) : detail::exception_text(explanation, ec);
  if (detail::is(ec, errc::already_running) || detail::is(ec, errc::still_cleaning_up))
    throw already_running(ec, what, holder);
  throw std::system_error(ec, what);
}
#endif

inline void single_instance::also_hold(std::string_view name, const lock_options& options,
                                       std::error_code& ec) noexcept {
  ec.clear();
  detail::without_throwing(ec, [&] {
    if (!*this) {
      ec = errc::lock_lost;
      return;
    }
    pid_lockfile lock(name, options, ec);
    holder_ = std::optional<lock_record>(lock.holder());
    explanation_ = lock.explanation();
    if (!ec) keep(lock, ec);
    if (!ec) sweep(lock, ec);
    if (!ec) locks_.push(std::move(lock));
  });
}

inline void single_instance::release() noexcept {
  if (owner_ != 0 && owner_ != platform::sys::getpid()) {
    // A forked copy: forget, end nothing. Handles of another process do nothing when they go.
    owner_ = 0;
    return;
  }
  owner_ = 0;
  group_ = process_group(nullptr);  // ends the children; the warden frees the locks it keeps
  for (std::size_t i = locks_.size(); i > 0; --i) locks_[i - 1].release();
  locks_ = {};
  detail::remove_stray_mark(mark_);
  signals_.release();
}

inline bool is_conflict(std::error_code why) noexcept {
  return detail::is(why, errc::already_running) || detail::is(why, errc::still_cleaning_up) ||
         detail::is(why, errc::managed_holder);
}

inline std::string single_instance::failure_text(std::string_view name, std::error_code why,
                                                 const single_instance_options& options, int exit_code,
                                                 bool terminal) const {
  if (!is_conflict(why) || detail::is(why, errc::managed_holder))
    return detail::fault_text(name, why, explanation_, exit_code, terminal);
  const std::string_view taken = refused_name_.empty() ? name : std::string_view(refused_name_);
  return detail::refusal_text(name, taken, why, holder_, options.lock.version, exit_code, terminal,
                              detail::not_stopped_because(explanation_));
}

inline single_instance single_instance::acquire_or_exit(std::string_view name,
                                                        const single_instance_options& options) noexcept {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  std::error_code ec;
  single_instance result;
  // On a terminal, say whom it waits for before it waits.
  const bool says_first = terminal && !options.lock.cleanup_wait;
  detail::without_throwing(ec, [&] {
    single_instance_options first = options;
    if (says_first) first.lock.cleanup_wait = std::optional<std::chrono::milliseconds>(std::chrono::milliseconds(0));
    result = acquire(name, first, ec);
  });
  // What is to be said may find no memory; then it is not said.
  std::error_code unsaid;
  if (detail::is(ec, errc::still_cleaning_up) && says_first) {
    detail::without_throwing(unsaid, [&] { detail::say(detail::waiting_text(name, result.holder_)); });
    result = acquire(name, options, ec);
  }
  if (!ec) {
    detail::without_throwing(unsaid, [&] {
      if (result.recovered_from_) detail::say(detail::recovered_text(name, *result.recovered_from_));
    });
    return result;
  }
  // What exit(3) makes of it, so that the text tells the truth.
  const int code = is_conflict(ec) ? options.conflict_exit_code & 0xff : 73;  // EX_CANTCREAT
  detail::without_throwing(unsaid, [&] { detail::say(result.failure_text(name, ec, options, code, terminal)); });
  std::exit(code);
}

}  // namespace instance_guard
