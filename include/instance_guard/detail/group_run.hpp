// layer 4: process_group::run; part of process_group.hpp.
#pragma once

#include <new>

#include "../process_group.hpp"
#include "run_capture.hpp"

namespace instance_guard {

namespace detail {

/// One command in a group of its own, so that its leftovers can be told from others. What
/// on_output throws comes through; the command and its subtree are ended then as well.
inline run_result run_in(process_group& outer, const std::vector<std::string>& arguments, run_options options,
                         std::error_code& ec) {
  run_result result;
  prepare_streams(options);
  const deadline end(options.timeout);
  process_group group = outer.nested(outer.options(), ec);
  if (ec) return result;
  child command = group.spawn(arguments, options.process, ec);
  if (ec) return result;
  run_capture capture(options, result, command.in(), command.out(), command.err());
  result.timed_out = !capture.pump(command.exit_fd(), end, ec);
  if (ec) result.timed_out = false;
  // Once before, so that whoever is asked to end has room for its last words; once after.
  capture.drain();
  std::error_code ending;
  result.ended = group.terminate(ending);
  capture.drain();
  if (!ec) ec = ending;
  if (ec) return result;
  // The status came before the report. What could not be ended has none, and may never have.
  if (const auto status = command.wait_for(std::chrono::milliseconds(0), ec)) result.status = *status;
  return result;
}

}  // namespace detail

inline run_result process_group::run(const std::vector<std::string>& arguments, const run_options& options,
                                     std::error_code& ec) noexcept {
  ec.clear();
  run_result result;
#if INSTANCE_GUARD_EXCEPTIONS
  try {
    result = detail::run_in(*this, arguments, options, ec);
  } catch (const std::bad_alloc&) {
    ec = std::make_error_code(std::errc::not_enough_memory);
  }  // what else on_output throws ends the program, as documented
#else
  result = detail::run_in(*this, arguments, options, ec);
#endif
  return result;
}

#if INSTANCE_GUARD_EXCEPTIONS
inline run_result process_group::run(const std::vector<std::string>& arguments, const run_options& options) {
  std::error_code ec;
  run_result result = detail::run_in(*this, arguments, options, ec);
  if (ec) throw std::system_error(ec, detail::spawn_text(arguments, options.process));
  return result;
}
#endif

}  // namespace instance_guard
