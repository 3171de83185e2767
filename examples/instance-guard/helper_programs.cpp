#include "helper_programs.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <utility>

#include <instance_guard/file_descriptor.hpp>
#include <instance_guard/process_group.hpp>

#include "process_text.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

bool is_object_name(const std::string& text) {
  return (text.size() == 40 || text.size() == 64) && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::optional<int> count_commits(const std::string& program, const std::string& directory, const std::string& from,
                                 const std::string& to) {
  std::error_code ec;
  process_group group(ec);
  if (ec) return {};
  run_options options;
  options.timeout = std::chrono::seconds(10);
  options.max_output = 4096;
  // Nothing of the caller's environment may say where a repository is, or what to trust.
  options.process.clear_environment = true;
  options.process.err = stdio::null();
  const run_result result = group.run({program, directory, from, to}, options, ec);
  if (ec || result.timed_out || !result.status.exited() || result.status.code() != 0) return {};
  char* end = nullptr;
  const long count = std::strtol(result.out.c_str(), &end, 10);
  if (end == result.out.c_str() || *end != '\n' || count < 0 || count > 100'000'000) return {};
  return static_cast<int>(count);
}

/// The last line that a program said, harmless.
std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::size_t newline = text.rfind('\n');
  return shown(newline == std::string::npos ? text : text.substr(newline + 1));
}

}  // namespace

std::string helper_program(const std::string& name) {
  std::error_code ec;
  std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", ec);
  if (ec) self = std::filesystem::absolute(own_program(), ec);
  if (ec) return {};
  const std::filesystem::path beside = self.parent_path();
  for (const std::filesystem::path& directory : {beside, beside.parent_path() / "libexec" / "instance-guard"}) {
    const std::string path = directory / name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

std::function<std::optional<int>(const std::filesystem::path&, const std::string&, const std::string&)>
commit_counter() {
  const std::string program = helper_program("instance-guard-commits");
  if (program.empty()) return {};
  using question = std::tuple<std::string, std::string, std::string>;
  auto known = std::make_shared<std::map<question, std::optional<int>>>();
  return [program, known](const std::filesystem::path& directory, const std::string& from,
                          const std::string& to) -> std::optional<int> {
    if (!is_object_name(from) || !is_object_name(to)) return {};
    const auto [at, is_new] = known->try_emplace({directory.string(), from, to});
    if (is_new) at->second = count_commits(program, directory.string(), from, to);
    return at->second;
  };
}

std::string read_webhook_file(const std::string& path) {
  const std::string what = "--webhook-file " + path;
  const file_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat facts = {};
  if (!file || ::fstat(file.get(), &facts) != 0)
    throw std::runtime_error(what + ": " + std::system_category().message(errno));
  if (!S_ISREG(facts.st_mode)) throw std::runtime_error(what + " is no file");
  if ((facts.st_mode & 0077) != 0) throw std::runtime_error(what + " can be read by others: chmod 600 it");
  char text[4096];
  const ssize_t size = ::read(file.get(), text, sizeof text);
  std::string address(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  address.erase(std::min(address.find_first_of("\r\n"), address.size()));
  if (address.empty()) throw std::runtime_error(what + " is empty");
  return address;
}

void post(const std::string& address, const std::vector<std::string>& payloads) {
  const std::string program = helper_program("instance-guard-post");
  if (program.empty()) throw std::runtime_error("can't post: instance-guard-post is not there (built without libcurl)");
  process_group group;
  run_options options;
  options.timeout = std::chrono::seconds(60);
  options.max_output = 65'536;
  options.input = address + "\n";
  for (const std::string& each : payloads) options.input += each + "\n";
  const run_result result = group.run({program}, options);
  if (result.timed_out) throw std::runtime_error("not posted: no answer within a minute");
  if (!result.status.exited() || result.status.code() != 0) {
    const std::string said = last_line(result.err);
    throw std::runtime_error("not posted: " + (said.empty() ? "unknown reason" : said));
  }
}

}  // namespace tool
