// What needs a large library runs as a program of its own, only when it is asked for: `run` stands
// before every start of a program and must stay small, and a repository or a server that is not to
// be trusted is read by a process that can be ended.
//
//   instance-guard-census WORD...               what needs a census: census_commands.hpp
//   instance-guard-commits DIRECTORY FROM TO    counts commits (libgit2)
//   instance-guard-post                         posts to a webhook (libcurl)
//
// Each stands beside the tool, or in ../libexec/instance-guard. Where one was not built, what it
// would tell is left out.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace tool {

/// The path of such a program; empty: it is not installed.
std::string helper_program(const std::string& name);

/// For census_options::commits_between; asks once for each answer.
std::function<std::optional<int>(const std::filesystem::path&, const std::string&, const std::string&)>
commit_counter();

/// Posts each payload to a webhook. The address is never on a command line, in an environment, or
/// in a message. Throws std::runtime_error with what went wrong, at the latest after a minute.
void post(const std::string& address, const std::vector<std::string>& payloads);

/// The address in a file that only its owner can read; throws std::runtime_error.
std::string read_webhook_file(const std::string& path);

}  // namespace tool
