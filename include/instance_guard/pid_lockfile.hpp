// layer 3: one holder per name.
//
//   pid_lockfile lock("wallet-0x39a1", {.wait = 5s});     // throws already_running
//   lock.verify();                                        // before what must not be done twice
//
// Two kernel locks stand for a name: a file lock in default_lock_directory(), and on Linux a
// socket without a file, which finds a second instance also when the file was removed or the
// directories differ. The file's existence means nothing; its content says who has the lock.
// The lock goes with the process that took it, however that ends. A clean end removes the file;
// where it is left, the next holder learns of it by recovered_from().
//
// fork(2): a child holds nothing, and its copy of the object does nothing. exec(2): the lock is
// let go. Threads: one object, one thread at a time, but for verify(), which any may call;
// different objects, any. Signals: what ends locks on the way out is in detail/lock_slot.hpp;
// nothing here may be called in a handler.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "detail/lock_acquire.hpp"
#include "detail/lock_hand_over.hpp"
#include "detail/lock_query.hpp"
#include "detail/lock_session.hpp"
#include "detail/lock_verify.hpp"
#include "detail/owned.hpp"
#include "error.hpp"
#include "pid_lockfile_types.hpp"

namespace instance_guard {

/// Holds a name, or nothing. Unlocks and unlinks when destroyed by the process that took it.
class [[nodiscard]] pid_lockfile {
 public:
  /// Holds nothing.
  pid_lockfile() noexcept = default;

  /// Takes `name`, of [A-Za-z0-9._@:+-]{1,64}, upper and lower case being the same.
  ///
  /// `ec`: errc::already_running (holder() says by whom), still_cleaning_up, managed_holder,
  /// invalid_name, unsafe_directory, network_file_system; of the system, for the file or its
  /// directory: permission_denied, read_only_file_system, no_space_on_device, file_too_large,
  /// too_many_files_open, no_lock_available, not_enough_memory, ... explanation() names the path
  /// and the cure. On failure nothing was changed.
  pid_lockfile(std::string_view name, const lock_options& options, std::error_code& ec) noexcept {
    acquire(name, options, ec);
  }
  pid_lockfile(std::string_view name, std::error_code& ec) noexcept
      : pid_lockfile(name, lock_options{}, ec) {}
#if INSTANCE_GUARD_EXCEPTIONS
  /// Throws instance_guard::already_running, else std::system_error.
  explicit pid_lockfile(std::string_view name, const lock_options& options = {}) {
    std::error_code ec;
    acquire(name, options, ec);
    if (!ec) return;
    const std::string what = session_ ? session_->fault.exception_text() : std::string();
    if (detail::is(ec, errc::already_running) || detail::is(ec, errc::still_cleaning_up))
      throw instance_guard::already_running(ec, what, holder());
    throw std::system_error(ec, what.empty() ? std::string(name.substr(0, 64)) : what);
  }
#endif

  pid_lockfile(pid_lockfile&&) noexcept = default;
  pid_lockfile& operator=(pid_lockfile&& other) noexcept {
    if (this != &other) {
      release();
      session_ = std::move(other.session_);
    }
    return *this;
  }
  ~pid_lockfile() { release(); }

  /// True while this object holds its name. False in a forked child.
  bool owns_lock() const noexcept { return session_ && session_->held() != nullptr; }
  explicit operator bool() const noexcept { return owns_lock(); }

  /// Makes sure that this still is the one holder: two system calls when all is well. A file that
  /// was removed is put back.
  ///
  /// `ec`: errc::lock_lost: stop working, another may have begun. warden_lost: the lock is held,
  /// but the children of a group that keeps it would outlive a crash.
  void verify(std::error_code& ec) noexcept {
    ec.clear();
    if (!session_)
      ec = errc::lock_lost;
    else
      detail::without_throwing(ec, [&] { detail::verify_lock(*session_, ec); });
  }
#if INSTANCE_GUARD_EXCEPTIONS
  void verify() {
    std::error_code ec;
    verify(ec);
    if (ec) throw std::system_error(ec, path().string());
  }
#endif

  /// Lets the name go; twice is once. A name that a process_group keeps goes when its last
  /// process has ended.
  void release() noexcept {
    if (!session_ || session_->slot < 0) return;
    detail::lock_change_scope scope;
    if (detail::is_forked_copy()) detail::drop_inherited_locks();
    // A child of vfork shares this memory: it must not even forget the slot.
    if (detail::lock_slot* slot = session_->held(); slot != nullptr && detail::release_slot(*slot))
      session_->slot = -1;
  }

  /// The lock file: absolute; empty for an object that never had a name.
  const std::filesystem::path& path() const noexcept { return known().path; }

  /// Who refused this object; empty when nobody did, or when its record can't be read.
  const std::optional<lock_record>& holder() const noexcept { return known().holder; }

  /// The last holder, if it did not end cleanly; with its mark and its warden.
  const std::optional<lock_record>& recovered_from() const noexcept { return known().recovered; }

  /// What the file says of this process.
  const lock_record& record() const noexcept { return known().record; }

  /// Why the lock could not be taken: one line with the path, and if there is a cure a second one,
  /// "  cure     rm …". Empty when nothing went wrong.
  const std::string& explanation() const noexcept { return known().explanation; }

  /// Internal.
  detail::lock_session* session() const noexcept { return session_.get(); }

 private:
  const detail::lock_session& known() const noexcept {
    static const detail::lock_session nothing;
    return session_ ? *session_ : nothing;
  }

  void acquire(std::string_view name, const lock_options& options, std::error_code& ec) noexcept {
    ec.clear();
    detail::without_throwing(ec, [&] {
      session_ = detail::owned<detail::lock_session>(new detail::lock_session);
      session_->name = detail::lock_name(name);
      session_->options = lock_options(options);
      if (!options.directory.empty())  // as it is meant now; the working directory may change
        session_->options.directory = std::filesystem::absolute(options.directory, ec);
      if (ec) return;
      if (!session_->name) {
        session_->fault = detail::make_fault(errc::invalid_name, detail::bad_name_text(name));
        session_->explanation = session_->fault.explanation();
        ec = session_->fault.code;
        return;
      }
      detail::lock_acquisition(*session_).run(ec);
    });
    if (ec) release();  // taken, but there was no memory to say from whom
  }

  detail::owned<detail::lock_session> session_;
};

namespace detail {

/// The slot of a lock that is held by this process. Layers above only; see lock_slot.hpp.
inline lock_slot& slot_of(const pid_lockfile& lock) noexcept { return *lock.session()->held(); }

/// What the layers above add to lock.record() once they know it, before the program goes on. One
/// pwrite and one ftruncate. `ec`: lock_lost, or why it could not be written.
inline void lock_update_record(const pid_lockfile& lock, lock_record changed,
                               std::error_code& ec) noexcept {
  ec.clear();
  without_throwing(ec, [&] {
    lock_session* session = lock.session();
    lock_slot* slot = session == nullptr ? nullptr : session->held();
    if (slot == nullptr) {
      ec = errc::lock_lost;
      return;
    }
    session->record = std::move(changed);
    lock_change_scope scope;
    const int result = rewrite_record(*session, *slot, scope);
    if (result != 0) ec.assign(-result, std::system_category());
  });
}

}  // namespace detail

/// What a name is, and who has it. Takes nothing, disturbs nobody, needs no write access.
/// `ec`: invalid_name, unsafe_directory; of the system when the file can't be read.
inline lock_status query_lock(std::string_view name, const lock_options& options,
                              std::error_code& ec) noexcept {
  ec.clear();
  lock_status status;
  detail::without_throwing(ec, [&] {
    const detail::lock_name folded(name);
    if (folded)
      status = detail::query(folded, options, ec);
    else
      ec = errc::invalid_name;
  });
  return status;
}
inline lock_status query_lock(std::string_view name, std::error_code& ec) noexcept {
  return query_lock(name, lock_options{}, ec);
}

/// Every name that is not free in a directory, in order.
inline std::vector<lock_status> list_locks(const lock_options& options,
                                           std::error_code& ec) noexcept {
  ec.clear();
  std::vector<lock_status> result;
  detail::without_throwing(ec, [&] { result = detail::list(options, ec); });
  return result;
}
inline std::vector<lock_status> list_locks(std::error_code& ec) noexcept {
  return list_locks(lock_options{}, ec);
}

/// Makes the live holder of a name leave, as lock_options::replace does, without taking the name:
/// SIGTERM, its grace + 2 s, SIGKILL. Returns once it is gone; its warden may still be ending its
/// children (query_lock() says so). Nothing is sent where nobody holds the name.
///
/// `ec`: managed_holder, for one that a service manager would start again (explanation says what
/// stops it); already_running: this process or an ancestor has it, or that it is the holder can't
/// be proven; timed_out: it does not even end by SIGKILL; operation_not_permitted; invalid_name;
/// those of query_lock().
inline stop_result stop_holder(std::string_view name, const stop_options& options,
                               std::error_code& ec) noexcept {
  ec.clear();
  stop_result result;
  detail::without_throwing(ec, [&] {
    lock_options look;
    look.scope = options.scope;
    look.directory = options.directory;
    lock_status status = query_lock(name, look, ec);
    if (ec || status.state != lock_state::held) return;
    result.holder = std::move(status.holder);
    if (!result.holder) {
      ec = errc::already_running;
      result.explanation =
          detail::joined({status.name, ": held; its holder's record can't be read: not stopped"});
      return;
    }
    const detail::stop_outcome outcome =
        detail::end_holder(*result.holder, status.path, options, detail::lock_name(name));
    ec = outcome.fault.code;
    result.ended = !ec;
    result.killed = outcome.killed;
    result.explanation = outcome.fault.explanation();
  });
  return result;
}
inline stop_result stop_holder(std::string_view name, std::error_code& ec) noexcept {
  return stop_holder(name, stop_options{}, ec);
}

/// Where locks of this user, or of the host, are: the same whatever the environment says.
inline std::filesystem::path default_lock_directory(lock_scope scope,
                                                    std::error_code& ec) noexcept {
  ec.clear();
  std::filesystem::path result;
  detail::without_throwing(ec, [&] {
    lock_options options;
    options.scope = scope;
    options.allow_network_file_system = true;
    detail::lock_directory found =
        detail::open_lock_directory(options, detail::directory_use::look);
    result = std::move(found.path);
    if (found.fault && !detail::is(found.fault.code, std::errc::no_such_file_or_directory))
      ec = found.fault.code;
  });
  return result;
}

#if INSTANCE_GUARD_EXCEPTIONS
inline lock_status query_lock(std::string_view name, const lock_options& options = {}) {
  std::error_code ec;
  lock_status status = query_lock(name, options, ec);
  if (ec) throw std::system_error(ec, std::string(name.substr(0, 64)));
  return status;
}
inline std::vector<lock_status> list_locks(const lock_options& options = {}) {
  std::error_code ec;
  std::vector<lock_status> result = list_locks(options, ec);
  if (ec) throw std::system_error(ec, "list_locks");
  return result;
}
inline stop_result stop_holder(std::string_view name, const stop_options& options = {}) {
  std::error_code ec;
  stop_result result = stop_holder(name, options, ec);
  if (ec)
    throw std::system_error(
        ec, result.explanation.empty() ? std::string(name.substr(0, 64)) : result.explanation);
  return result;
}
inline std::filesystem::path default_lock_directory(lock_scope scope) {
  std::error_code ec;
  std::filesystem::path result = default_lock_directory(scope, ec);
  if (ec) throw std::system_error(ec, result.string());
  return result;
}
#endif

}  // namespace instance_guard
