// layer 3: what an exception says of a program that could not be started.
#pragma once

#include <string>
#include <vector>

#include "../process_group_types.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// The program, and each path that it was to be started with: the code that follows may be about any
/// of them. "worker", "worker (in /srv/bot, stdout to /var/log/bot.log)".
inline std::string spawn_text(const std::vector<std::string>& arguments, const spawn_options& options) {
  if (arguments.empty()) return "no program to start";
  std::string paths;
  const auto add = [&](const char* what, const std::filesystem::path& path) {
    paths += joined({paths.empty() ? "" : ", ", what, path.native()});
  };
  if (!options.working_directory.empty()) add("in ", options.working_directory);
  if (options.in.to == stdio::target::file) add("stdin from ", options.in.path);
  if (options.out.to == stdio::target::file) add("stdout to ", options.out.path);
  if (options.err.to == stdio::target::file) add("stderr to ", options.err.path);
  const std::string& program = arguments.front();
  return joined({program.empty() ? "\"\"" : program, paths.empty() ? "" : " (", paths, paths.empty() ? "" : ")"});
}

}  // namespace instance_guard::detail
