// layer 3: who has a name, and how to make that one leave.
//
//   for (const lock_status& each : list_locks()) ...      // every name that is not free
//   query_lock("shiva").holder->process.pid               // who has one
//
// The questions take nothing and disturb nobody; stop_holder() sends signals. Threads: any. Nothing here may be
// called in a signal handler.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <system_error>
#include <utility>
#include <vector>

#include "detail/lock_query.hpp"
#include "detail/lock_replace.hpp"
#include "error.hpp"
#include "lock_status_types.hpp"
#include "pid_lockfile_types.hpp"

namespace instance_guard {

/// What a name is, and who has it. Takes nothing, disturbs nobody, needs no write access.
/// `ec`: invalid_name, unsafe_directory; of the system when the file can't be read, or is none that a start would
/// take (a directory, a link, another user's). Then status.explanation says which path and what helps.
inline lock_status query_lock(std::string_view name, const lock_options& options, std::error_code& ec) noexcept {
  ec.clear();
  lock_status status;
  detail::without_throwing(ec, [&] {
    const detail::lock_name folded(name);
    detail::process_list seen;
    if (folded) status = detail::query(folded, options, &seen, ec);
    else ec = errc::invalid_name;
  });
  return status;
}
inline lock_status query_lock(std::string_view name, std::error_code& ec) noexcept {
  return query_lock(name, lock_options{}, ec);
}

/// Every name that is not free in a directory, in order; also those of which that can't be told, with an explanation.
inline std::vector<lock_status> list_locks(const lock_options& options, std::error_code& ec) noexcept {
  ec.clear();
  std::vector<lock_status> result;
  detail::without_throwing(ec, [&] { result = detail::list(options, true, ec); });
  return result;
}
inline std::vector<lock_status> list_locks(std::error_code& ec) noexcept { return list_locks(lock_options{}, ec); }

/// Makes the live holder of a name leave, as lock_options::replace does, without taking the name:
/// SIGTERM, its grace + 2 s, SIGKILL. Returns once it is gone; its warden may still be ending its
/// children (query_lock() says so). Nothing is sent where nobody holds the name.
///
/// `ec`: managed_holder, for one that a service manager would start again (explanation says what
/// stops it); already_running: this process or an ancestor has it, or that it is the holder can't
/// be proven; timed_out: it does not even end by SIGKILL; operation_not_permitted; invalid_name;
/// those of query_lock().
inline stop_result stop_holder(std::string_view name, const stop_options& options, std::error_code& ec) noexcept {
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
      result.explanation = detail::joined({status.name, ": held; its holder's record can't be read: not stopped"});
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
inline std::filesystem::path default_lock_directory(lock_scope scope, std::error_code& ec) noexcept {
  ec.clear();
  std::filesystem::path result;
  detail::without_throwing(ec, [&] {
    lock_options options;
    options.scope = scope;
    options.allow_network_file_system = true;
    detail::lock_directory found = detail::open_lock_directory(options, detail::directory_use::look);
    result = std::move(found.path);
    if (found.fault && !detail::is(found.fault.code, std::errc::no_such_file_or_directory)) ec = found.fault.code;
  });
  return result;
}

#if INSTANCE_GUARD_EXCEPTIONS
inline lock_status query_lock(std::string_view name, const lock_options& options = {}) {
  std::error_code ec;
  lock_status status = query_lock(name, options, ec);
  const detail::lock_name folded(name);
  if (ec && !status.explanation.empty()) throw std::system_error(ec, detail::exception_text(status.explanation, ec));
  if (ec) throw std::system_error(ec, folded ? detail::asked_text(options, folded) : detail::bad_name_text(name));
  return status;
}
inline std::vector<lock_status> list_locks(const lock_options& options = {}) {
  std::error_code ec;
  std::vector<lock_status> result = list_locks(options, ec);
  if (ec) throw std::system_error(ec, detail::asked_text(options));
  return result;
}
inline stop_result stop_holder(std::string_view name, const stop_options& options = {}) {
  std::error_code ec;
  stop_result result = stop_holder(name, options, ec);
  if (ec)
    throw std::system_error(ec, result.explanation.empty() ? std::string(name.substr(0, 64))
                                                           : detail::exception_text(result.explanation, ec));
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
