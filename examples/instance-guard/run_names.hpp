// `run --name`: takes the names, and says whom it waits for or who has them.
#pragma once

#include <instance_guard/single_instance.hpp>
#include <optional>
#include <string>
#include <vector>

#include "run_options.hpp"

namespace tool {

/// What a group of `run` is asked for, with names or without.
instance_guard::group_options run_group_options(const run_settings& settings);

/// All of settings.names, or none. Empty: taken, by `guard`; else what to exit with.
std::optional<int> take_names(const run_settings& settings, const std::vector<std::string>& command,
                              instance_guard::single_instance& guard);

/// To stderr, as it is.
void write_out(const std::string& text);

/// One line on stderr, whole; what a terminal would obey is made harmless.
void say(const std::string& text);

}  // namespace tool
