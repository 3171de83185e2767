// For the tool: what needs a census is done by the program beside it, as this same process.
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "census_commands.hpp"
#include "helper_programs.hpp"

namespace tool {
namespace {

[[noreturn]] int census_program(const invocation& call) {
  if (::access("/proc/self/exe", F_OK) != 0)
    throw std::runtime_error("/proc is not mounted here, and shows who runs: mount -t proc proc /proc");
  const std::string program = helper_program("instance-guard-census");
  if (program.empty())
    throw std::runtime_error(
        "instance-guard-census is missing: it belongs beside the tool, or in "
        "../libexec/instance-guard");
  std::vector<char*> words = {const_cast<char*>(program.c_str())};
  for (const std::string& each : call.words) words.push_back(const_cast<char*>(each.c_str()));
  words.push_back(nullptr);
  ::execv(program.c_str(), words.data());
  throw std::system_error(errno, std::system_category(), program);
}

}  // namespace

int audit(const audit_arguments&, const invocation& call) { return census_program(call); }

int reap_ghosts(const reap_arguments&, std::chrono::milliseconds, const invocation& call) {
  return census_program(call);
}

}  // namespace tool
