// layer 3: taking a name: attempts, and the waiting between them.
//
// Waiting is event-driven: a connection to the socket lock ends the moment its last holder, owner
// or warden, is gone. Where there is none to connect to: again after 1 to 50 ms. Signals arrive
// as the program has them; they are blocked only during an attempt.
#pragma once

#include <poll.h>

#include <chrono>
#include <optional>
#include <string>

#include "deadline.hpp"
#include "left_over.hpp"
#include "lock_attempt.hpp"
#include "lock_directory.hpp"
#include "lock_holder.hpp"
#include "lock_refusals.hpp"
#include "lock_replace.hpp"
#include "lock_self.hpp"
#include "lock_session.hpp"

namespace instance_guard::detail {

inline constexpr std::int64_t ms_in_ns = 1'000'000;

/// Sleeps until the name may be free, `limit` ns at most (negative: none).
class lock_waiter {
 public:
  lock_waiter(lock_scope scope, const lock_name& name) noexcept
      : scope_(scope), address_(scope, platform::sys::geteuid(), name.view()) {}

  void wait(std::int64_t limit) noexcept {
    // Bounded, so that a name that is kept without its socket is noticed as well.
    constexpr std::int64_t look_again = 500 * ms_in_ns;
    file_descriptor connection(platform::watch_socket_name(address_.text, address_.size));
    uid_t uid = 0;
    if (connection && (!platform::peer_user(connection.get(), uid) ||
                       (scope_ == lock_scope::user && uid != platform::sys::geteuid())))
      connection.reset();  // a stranger's: it says nothing about the name
    if (connection) {
      pollfd entry{connection.get(), POLLIN, 0};
      const int woken = platform::sys::ppoll(&entry, 1, least(limit, look_again), nullptr);
      if (woken > 0) back_off_ = first_back_off;
      return;
    }
    platform::sys::sleep_for(least(limit, back_off_));
    back_off_ = least(back_off_ * 2, 50 * ms_in_ns);
  }

 private:
  static constexpr std::int64_t first_back_off = ms_in_ns;
  static constexpr std::int64_t least(std::int64_t limit, std::int64_t other) noexcept {
    return limit < 0 || other < limit ? other : limit;
  }

  lock_scope scope_;
  socket_name address_;
  std::int64_t back_off_ = first_back_off;
};

/// Everything that is decided between the attempts of one acquisition.
class lock_acquisition {
 public:
  explicit lock_acquisition(lock_session& session)
      : session_(session), live_until_(session.options.wait), waiter_(session.options.scope, session.name) {}

  /// Tries until taken, refused or at fault. `ec` and session.fault say which.
  void run(std::error_code& ec) {
    for (;;) {
      lock_directory directory = open_lock_directory(session_.options, directory_use::take);
      if (directory.fault) return fail(std::move(directory.fault), ec);
      const lock_file_name file(session_.name.view(), lock_suffix);
      session_.path = directory.path / file.text;
      const attempt_result result = attempt(directory);
      if (result == attempt_result::taken) return;
      if (result == attempt_result::fault) return fail(std::move(fault_), ec);
      if (result == attempt_result::try_again) {
        if (++moved_ > 32)
          return fail(make_fault(std::make_error_code(std::errc::resource_unavailable_try_again),
                                 joined({directory.path.native(), " takes no file, or is replaced all the time"}),
                                 another_directory),
                      ec);
        continue;
      }
      if (refused(result, ec)) {
        if (is(ec, errc::already_running) || is(ec, errc::still_cleaning_up))
          note_refusal(directory.descriptor.get(), session_.name, session_.record.started_from);
        return;
      }
    }
  }

 private:
  attempt_result attempt(const lock_directory& directory) {
    lock_change_scope scope;
    if (!described_) {
      const std::string version = session_.options.version;
      session_.record = describe_self();
      session_.record.name = session_.name.view();
      session_.record.version = version;
      if (!session_.options.arguments.empty()) describe_command(session_.options.arguments, session_.record);
      described_ = true;
    }
    lock_attempt one{session_.name, session_.options.scope, session_.path.string(), directory.descriptor.get(),
                     &session_.record};
    const attempt_result result = attempt_lock(one, scope);
    if (result == attempt_result::taken) {  // before anything that may throw: who owns it lets it go
      session_.slot = one.slot;
      lock_slots[one.slot].session.store(&session_, std::memory_order_relaxed);
      session_.generation = lock_slots[one.slot].generation.load(std::memory_order_relaxed);
    }
    fault_ = std::move(one.fault);
    unwritten_ = one.found.size == 0;
    found_ = parse_record(one.found.view());
    // Whoever owns the file may have written anything: it can't speak for processes of others.
    if (found_ && found_->uid != one.found.user) found_->mark.clear(), found_->warden = {};
    if (result == attempt_result::taken) {
      session_.recovered = std::move(found_);
      session_.holder.reset();
    }
    return result;
  }

  /// The name is somebody else's for now. True: give up, with `ec`; false: try again.
  bool refused(attempt_result result, std::error_code& ec) {
    if (result == attempt_result::busy_here) {
      session_.holder = std::move(found_);
      return expired(live_until_, errc::already_running, ec, joined({session_.name.view(), ": held by this process"}));
    }
    holder_state state = result == attempt_result::busy_file ? judge_holder(found_) : holder_state::unknown;
    if (state != holder_state::unknown) unknown_until_ = {};
    else if (!find_out(result, state)) return false;
    session_.holder = std::move(found_);
    if (state == holder_state::cleaning) return cleaning_up(ec);
    cleaning_until_ = {};
    // Once: who has it then was started meanwhile, and two that replace each other never end.
    if (session_.options.replace && session_.holder && !replaced_) {
      replaced_ = true;
      fault_ = replace_holder(*session_.holder, session_.path, session_.options, session_.name);
      if (fault_) {
        fail(std::move(fault_), ec);
        return true;
      }
      return false;
    }
    return expired(live_until_, errc::already_running, ec, refusal_text());
  }

  /// Who it is when no record tells: a holder between taking the lock and writing its record, one
  /// that can't write it, or one whose file is another. False: look again, for 100 ms at most;
  /// for half a second where the file is empty and nobody can be asked: its holder waits for a busy processor.
  bool find_out(attempt_result result, holder_state& state) {
    if (!unknown_until_.is_set()) {
      unknown_until_ = deadline(std::chrono::milliseconds(100));
      unwritten_until_ = deadline(std::chrono::milliseconds(500));
    }
    const bool patient = !unknown_until_.passed();
    if (patient && result == attempt_result::busy_file) {
      platform::sys::sleep_for(ms_in_ns);
      return false;
    }
    socket_listener listener = listener_of(session_.options.scope, session_.name);
    // This process does not have it, or busy_here had said so: a child that was forked just before
    // the last release has not run its handlers yet.
    if (listener.record && listener.record->process.pid == platform::sys::getpid()) listener = {};
    const bool unwritten = result == attempt_result::busy_file && unwritten_ && !unwritten_until_.passed();
    if ((patient || unwritten) && listener.state == listener_state::none) {
      platform::sys::sleep_for(ms_in_ns);
      return false;
    }
    if (result == attempt_result::busy_socket) found_.reset();  // the record is not the holder's
    state = listener.state == listener_state::gone || found_ ? holder_state::cleaning : holder_state::live;
    if (listener.record) {
      found_ = std::move(listener.record);
      state = holder_state::live;
    }
    return true;
  }

  bool cleaning_up(std::error_code& ec) {
    if (!cleaning_until_.is_set()) {
      const std::int64_t grace = session_.holder ? session_.holder->grace.count() : 5'000;
      std::chrono::milliseconds limit = longer(grace, 10'000);
      if (session_.options.cleanup_wait) limit = *session_.options.cleanup_wait;
      cleaning_until_ = deadline(limit);
    }
    if (session_.holder) continue_stopped_warden(*session_.holder);
    if (!cleaning_until_.passed()) {
      wait_until(cleaning_until_);
      return false;
    }
    if (session_.holder && !killed_warden_ && kill_stopped_warden(*session_.holder)) {
      killed_warden_ = true;  // its death frees the name
      cleaning_until_ = deadline(std::chrono::milliseconds(2'000));
      return false;
    }
    const std::string left = session_.holder ? left_over_text(*session_.holder) : std::string();
    return expired(live_until_, errc::still_cleaning_up, ec,
                   refusal_text() + (left.empty() ? left : "; left: " + left));
  }

  bool expired(const deadline& until, errc why, std::error_code& ec, std::string what) {
    if (!until.passed()) {
      wait_until(until);
      return false;
    }
    fail(refusal_fault(why, std::move(what)), ec);
    return true;
  }

  std::string refusal_text() const {
    if (!session_.holder) return joined({session_.name.view(), ": held"});
    return joined({session_.name.view(), ": held by pid ", std::to_string(session_.holder->process.pid),
                   ", started from ", session_.holder->started_from});
  }

  /// Sleeps until something may have changed, or the deadline.
  void wait_until(const deadline& until) noexcept { waiter_.wait(until.left()); }

  void fail(lock_fault fault, std::error_code& ec) {
    ec = fault.code;
    session_.explanation = fault.explanation();
    session_.fault = std::move(fault);
  }

  lock_session& session_;
  deadline live_until_;
  deadline cleaning_until_ = {};
  deadline unknown_until_ = {};
  deadline unwritten_until_ = {};
  lock_waiter waiter_;
  std::optional<lock_record> found_ = {};
  lock_fault fault_ = {};
  bool unwritten_ = false;  ///< the file that was found has nothing in it
  bool described_ = false;
  bool killed_warden_ = false;
  bool replaced_ = false;
  int moved_ = 0;
};

}  // namespace instance_guard::detail
