// What the subcommands that look at names have in common.
#pragma once

#include <CLI/CLI.hpp>

#include <cstddef>
#include <string>

#include <instance_guard/pid_lockfile.hpp>

#include "subcommands.hpp"

namespace tool {

/// Where to look.
struct look_options {
  std::string scope = {};  ///< empty: both
  std::string directory = {};

  bool wants(instance_guard::lock_scope asked) const {
    const bool host = asked == instance_guard::lock_scope::host;
    // A directory has the files of one scope.
    return scope.empty() ? !host || directory.empty() : host == (scope == "host");
  }
  instance_guard::lock_options in(instance_guard::lock_scope asked) const {
    instance_guard::lock_options result;
    result.scope = asked;
    result.directory = directory;
    return result;
  }
};

inline void add_look_options(CLI::App& sub, look_options& to) {
  sub.add_option("--scope", to.scope, "Only this one (default: both; with --directory, user)")
      ->check(CLI::IsMember({"user", "host"}))
      ->type_name("user|host");
  sub.add_option("--directory", to.directory, "Where the lock files are, if the program chose that")->type_name("DIR");
}

/// For all but `run`: before anything else is looked at.
inline void refuse_command(CLI::App& sub, const invocation& call) {
  sub.preparse_callback([&call](std::size_t) {
    if (call.has_command) throw CLI::ValidationError("takes no command: only run has a --");
  });
}

}  // namespace tool
