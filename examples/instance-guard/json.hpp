// JSON of the tool: valid whatever bytes were in a command line or a name.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace tool {

using json = nlohmann::ordered_json;

/// Grows by one with each incompatible change.
inline constexpr int json_schema = 1;

/// Bytes that are no UTF-8 become U+FFFD. Ends with a newline.
inline std::string dumped(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace tool
