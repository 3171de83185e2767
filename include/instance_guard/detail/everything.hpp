// layer 4: reach::everything: the caller becomes the warden, the program goes on in a child.
#pragma once

#include <system_error>

#include "../process_group.hpp"

namespace instance_guard::detail {

/// Returns in a child of the caller, which has become the warden of everything that the child
/// will ever start. Errors: threads_running.
inline process_group become_child_of_warden(const group_options& options, std::error_code& ec) noexcept {
  (void)options;
  ec = std::make_error_code(std::errc::function_not_supported);
  return process_group(nullptr);
}

}  // namespace instance_guard::detail
