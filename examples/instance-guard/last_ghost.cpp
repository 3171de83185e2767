#include "last_ghost.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include <instance_guard/file_descriptor.hpp>

#include "write_whole.hpp"

namespace tool {
namespace {

using instance_guard::file_descriptor;
using std::chrono::seconds;

constexpr char file_name[] = "last-ghost";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_absolute(const std::string& path) { return !path.empty() && path.front() == '/'; }

/// Nobody else may put something in its place: it is one's own, or root's, and others can't write.
bool is_safe(const struct stat& facts) {
  return (facts.st_uid == ::geteuid() || facts.st_uid == 0) && (facts.st_mode & 0022) == 0;
}

/// The directory itself may be reached through links (a service manager makes some); it is looked at
/// once it is open. Empty: `fault` is set.
file_descriptor open_directory(const std::string& path, int& fault) {
  file_descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK));
  struct stat facts = {};
  fault = !directory || ::fstat(directory.get(), &facts) != 0 ? errno : is_safe(facts) ? 0 : EPERM;
  if (fault != 0) directory.reset();
  return directory;
}

file_descriptor open_without_link(int below, const std::string& name) {
  return file_descriptor(::openat(below, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
}

/// Makes what is missing of the path, readable by its owner alone: through no link, and only below a directory of
/// one's own where not everybody can put something. False: there is none.
bool make_directory(const std::string& path) {
  const auto is_own = [](const file_descriptor& directory) {
    struct stat facts = {};
    return directory && ::fstat(directory.get(), &facts) == 0 && facts.st_uid == ::geteuid() &&
           (facts.st_mode & S_IWOTH) == 0;
  };
  std::size_t end = path.size();
  struct stat facts = {};
  while (end > 1 && ::lstat(path.substr(0, end).c_str(), &facts) != 0) {
    end = path.rfind('/', end - 1);
    while (end > 0 && path[end - 1] == '/') --end;  // a link with a slash behind it would be followed
  }
  file_descriptor at = open_without_link(AT_FDCWD, end == 0 ? "/" : path.substr(0, end));
  while (is_own(at)) {
    const std::size_t begin = path.find_first_not_of('/', end);
    if (begin == std::string::npos) return true;
    end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    if (::mkdirat(at.get(), name.c_str(), 0700) != 0 && errno != EEXIST) return false;
    at = open_without_link(at.get(), name);
  }
  return false;
}

/// Whether somebody else has a say in where this leads. For root that is already whoever owns a part of the path.
bool is_of_others(const std::string& path) {
  const auto is_foreign = [](const struct stat& facts) { return facts.st_uid != ::geteuid() && facts.st_uid != 0; };
  struct stat facts = {};
  if (::stat(path.c_str(), &facts) == 0 && is_foreign(facts)) return true;
  for (std::size_t end = ::geteuid() == 0 ? 1 : path.size(); end <= path.size(); ++end)
    if ((end == path.size() || path[end] == '/') && ::lstat(path.substr(0, end).c_str(), &facts) == 0 &&
        is_foreign(facts))
      return true;
  return false;
}

/// Its number, if `text` is one line of digits and nothing else.
std::optional<std::int64_t> number_of(std::string_view text) {
  if (text.size() < 2 || text.size() > 12 || text.back() != '\n') return {};
  std::int64_t value = 0;
  for (const char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') return {};
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

std::string state_directory() {
  // A service manager that gives several separates them by colons.
  const std::string given = variable("STATE_DIRECTORY");
  if (is_absolute(given)) return given.substr(0, given.find(':'));
  if (const std::string state = variable("XDG_STATE_HOME"); is_absolute(state))
    return is_of_others(state) ? "" : state + "/instance-guard";
  const std::string home = variable("HOME");
  struct stat facts = {};
  // A home that is not there is not made; somebody else's (of sudo -E) is left alone.
  if (!is_absolute(home) || ::stat(home.c_str(), &facts) != 0 || is_of_others(home)) return {};
  return home + "/.local/state/instance-guard";
}

std::optional<wall_time> read_last_ghost(const std::string& path, wall_time now) {
  if (path.empty()) return {};
  int fault = 0;
  const file_descriptor directory = open_directory(path, fault);
  if (!directory) return {};
  const file_descriptor file(
      ::openat(directory.get(), file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat facts = {};
  if (!file || ::fstat(file.get(), &facts) != 0 || !S_ISREG(facts.st_mode) || !is_safe(facts)) return {};
  char text[64];
  const ssize_t size = ::read(file.get(), text, sizeof text);
  const auto value = number_of({text, size > 0 ? static_cast<std::size_t>(size) : 0});
  if (!value || *value <= 0) return {};
  const wall_time at{seconds(*value)};
  if (at > now) return {};  // of a clock that was wrong
  return at;
}

std::string write_last_ghost(const std::string& path, wall_time at) {
  if (path.empty()) return "no place for it: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is this user's own";
  int fault = 0;
  file_descriptor directory = open_directory(path, fault);
  if (fault == ENOENT) {
    if (!make_directory(path)) return "no place for it: " + path + " can't be made in a directory of this user's own";
    directory = open_directory(path, fault);
  }
  const std::string temporary = "." + std::string(file_name) + "." + std::to_string(::getpid());
  if (fault == 0) {
    // What an earlier process with this number has left.
    ::unlinkat(directory.get(), temporary.c_str(), 0);
    const file_descriptor file(
        ::openat(directory.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    const auto since = std::chrono::duration_cast<seconds>(at.time_since_epoch());
    fault = file ? write_whole(file.get(), std::to_string(since.count()) + "\n") : errno;
    if (fault == 0 && ::renameat(directory.get(), temporary.c_str(), directory.get(), file_name) != 0) fault = errno;
    if (fault != 0) ::unlinkat(directory.get(), temporary.c_str(), 0);
  }
  if (fault == 0) return {};
  if (fault == EPERM) return path + " belongs to somebody else, or others can write to it";
  return path + ": " + std::system_category().message(fault);
}

}  // namespace tool
