// Durations as people write them: "250ms", "5s", "2m", "1h30m", "7d", "forever".
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace tool {

/// Nothing if it is no duration. "forever" is instance_guard::no_limit; "0" needs no unit.
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);

/// What is wrong with it, in one line.
std::string bad_duration(std::string_view text);

}  // namespace tool
