// layer 2: the rows and details of a process_table, read through the platform layer.
#pragma once

#include <chrono>
#include <cstddef>
#include <system_error>
#include <vector>

#include "../process_table_types.hpp"

namespace instance_guard::detail {

struct table_content {
  std::vector<process_info> rows = {};
  std::vector<process_details> details = {};
  std::chrono::system_clock::time_point taken_at = {};
  std::size_t unreadable = 0;
  bool hides_others = false;
};

inline table_content read_table(const read_options&, std::error_code& ec) {
  ec = std::make_error_code(std::errc::function_not_supported);
  return {};
}

inline process_details read_details(const process_identity&, const read_options&,
                                    std::error_code& ec) {
  ec = std::make_error_code(std::errc::function_not_supported);
  return {};
}

}  // namespace instance_guard::detail
