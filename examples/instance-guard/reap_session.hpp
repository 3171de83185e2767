// What a session left behind, by its mark.
#pragma once

#include <chrono>
#include <string>

namespace tool {

/// Ends it, or only tells what would be ended. What to exit with.
int reap_session(const std::string& id, std::chrono::milliseconds grace, bool dry_run);

}  // namespace tool
