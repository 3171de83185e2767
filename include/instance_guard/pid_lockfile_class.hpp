// layer 3: the class pid_lockfile, apart from the questions about names: what a guard in main() needs of
// pid_lockfile.hpp, which says how it works.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "detail/lock_acquire.hpp"
#include "detail/lock_hand_over.hpp"
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
  pid_lockfile(std::string_view name, std::error_code& ec) noexcept : pid_lockfile(name, lock_options{}, ec) {}
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
    if (!session_) ec = errc::lock_lost;
    else detail::without_throwing(ec, [&] { detail::verify_lock(*session_, ec); });
  }
#if INSTANCE_GUARD_EXCEPTIONS
  void verify() {
    std::error_code ec;
    verify(ec);
    if (ec) throw std::system_error(ec, path().empty() ? "no lock" : path().string());
  }
#endif

  /// Lets the name go; twice is once. A name that a process_group keeps goes when its last
  /// process has ended.
  void release() noexcept {
    if (!session_ || session_->slot < 0) return;
    detail::lock_change_scope scope;
    if (detail::is_forked_copy()) detail::drop_inherited_locks();
    // A child of vfork shares this memory: it must not even forget the slot.
    if (detail::lock_slot* slot = session_->held(); slot != nullptr && detail::release_slot(*slot)) session_->slot = -1;
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
      if (ec) {
        session_->fault = detail::make_fault(
            ec, detail::joined({options.directory.native(), " is relative to a directory that is gone"}),
            "lock_options.directory as an absolute path");
        session_->explanation = session_->fault.explanation();
        return;
      }
      if (!session_->name) {
        session_->fault = detail::refusal_fault(errc::invalid_name, detail::bad_name_text(name));
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
inline void lock_update_record(const pid_lockfile& lock, lock_record changed, std::error_code& ec) noexcept {
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

}  // namespace instance_guard
