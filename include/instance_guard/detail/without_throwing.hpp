// layer 1: from exceptions to error codes, for the noexcept forms.
#pragma once

#include <new>
#include <system_error>

namespace instance_guard::detail {

/// Runs `work`; what it throws for want of memory becomes an error code.
template <typename Work>
void without_throwing([[maybe_unused]] std::error_code& ec, Work&& work) noexcept {
#if INSTANCE_GUARD_EXCEPTIONS
  try {
    work();
  } catch (const std::bad_alloc&) {
    ec = std::make_error_code(std::errc::not_enough_memory);
  } catch (const std::system_error& error) {
    ec = error.code();
  } catch (...) {
    ec = std::make_error_code(std::errc::not_enough_memory);
  }
#else
  work();
#endif
}

}  // namespace instance_guard::detail
