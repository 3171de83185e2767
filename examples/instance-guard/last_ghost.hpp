// When the last ghost was seen: the one thing that an audit keeps, so that a clean one can say it.
//
// A file of one line, seconds since 1970, in a directory of the user's own: $STATE_DIRECTORY where a
// service manager gives one, else instance-guard in $XDG_STATE_HOME or ~/.local/state. It is written
// beside itself and renamed, never through a link; whatever else is in it counts as nothing.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace tool {

using wall_time = std::chrono::system_clock::time_point;

/// Where it is kept; empty: the environment names no place, or somebody else's.
std::string state_directory();

/// When the last one was seen; empty: none is on record, or what is there can't be believed.
std::optional<wall_time> read_last_ghost(const std::string& directory, wall_time now);

/// Keeps the time; makes the directory if it is not there, below one of the user's own. What went wrong, for people;
/// empty: nothing.
std::string write_last_ghost(const std::string& directory, wall_time at);

}  // namespace tool
