// layer 1: from exceptions to error codes, for the noexcept forms.
#pragma once

#include <system_error>

namespace instance_guard::detail {

#if INSTANCE_GUARD_EXCEPTIONS
/// What the exception that is being handled is as an error code.
inline std::error_code caught_code() noexcept {
  try {
    throw;
  } catch (const std::system_error& error) {
    return error.code();
  } catch (...) {
    return std::make_error_code(std::errc::not_enough_memory);
  }
}
#endif

/// Runs `work`; what it throws for want of memory becomes an error code.
template <typename Work>
void without_throwing([[maybe_unused]] std::error_code& ec, Work&& work) noexcept {
#if INSTANCE_GUARD_EXCEPTIONS
  try {
    work();
  } catch (...) {
    ec = caught_code();
  }
#else
  work();
#endif
}

}  // namespace instance_guard::detail
