// layer 4: files that processes name, looked at without trust: no read waits, none is unbounded.
//
// What is on a file system that may hang (a dead server, a stopped FUSE program) or that mounts
// something when it is touched is not looked at.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "../file_descriptor.hpp"
#include "../platform/platform_census.hpp"
#include "census_words.hpp"

namespace instance_guard::detail {

/// Directories below which looking may take for ever.
class slow_places {
 public:
  slow_places() : places_(platform::slow_mounts()) {}

  /// For an absolute path without links.
  bool contain(std::string_view path) const noexcept {
    for (const std::string& each : places_)
      if (path.substr(0, each.size()) == each && (path.size() == each.size() || path[each.size()] == '/')) return true;
    return false;
  }

 private:
  std::vector<std::string> places_;
};

/// A link on the way to a file.
struct passed_link {
  std::string path = {};    ///< of the link itself, without links in it
  std::string target = {};  ///< where it leads now, without links in it
  std::string rest = {};    ///< of the path behind it: "main.py", or empty
  std::chrono::system_clock::time_point made_at = {};
};

/// A path followed to its end.
struct followed_path {
  std::string path = {};  ///< without links; empty: there is no such file, or it can't be told
  struct stat facts = {};
  std::vector<passed_link> links = {};
  bool slow = false;  ///< not looked at: it may take for ever
};

/// The modification time of a file, in whole seconds.
inline std::chrono::system_clock::time_point modified_at(const struct stat& facts) noexcept {
  return std::chrono::system_clock::time_point(std::chrono::seconds(facts.st_mtime));
}

/// Follows an absolute path, at most 40 links, as the caller's root directory has it.
inline followed_path follow_path(std::string_view path, const slow_places& slow) {
  followed_path result;
  if (path.empty() || path.front() != '/' || path.size() > 8192) return result;
  std::string done;  // without links
  std::string rest(path);
  for (int steps = 0, links = 0; steps < 1024; ++steps) {
    const std::size_t begin = rest.find_first_not_of('/');
    if (begin == std::string::npos) {
      result.path = done.empty() ? "/" : done;
      if (done.empty() && ::lstat("/", &result.facts) != 0) result.path.clear();
      return result;
    }
    std::size_t end = rest.find('/', begin);
    if (end == std::string::npos) end = rest.size();
    const std::string part = rest.substr(begin, end - begin);
    rest.erase(0, end);
    if (part == ".") continue;
    if (part == "..") {
      const std::size_t slash = done.rfind('/');
      done.erase(slash == std::string::npos ? 0 : slash);
      if (rest.find_first_not_of('/') == std::string::npos && !done.empty() &&
          ::lstat(done.c_str(), &result.facts) != 0)
        return result;
      continue;
    }
    const std::string next = done + "/" + part;
    if (slow.contain(next)) {
      result.slow = true;
      return result;
    }
    if (::lstat(next.c_str(), &result.facts) != 0) return result;
    if (!S_ISLNK(result.facts.st_mode)) {
      done = next;
      continue;
    }
    char target[4096];
    const ssize_t size = ::readlink(next.c_str(), target, sizeof target);
    if (size <= 0 || size == static_cast<ssize_t>(sizeof target) || ++links > 40) return result;
    passed_link link;
    link.path = next;
    link.rest = rest.substr(std::min(rest.find_first_not_of('/'), rest.size()));
    link.made_at = modified_at(result.facts);
    link.target.assign(target, static_cast<std::size_t>(size));
    rest = link.target + "/" + rest;
    if (link.target.front() == '/') done.clear();
    else link.target = done + "/" + link.target;
    result.links.push_back(std::move(link));
  }
  return result;
}

/// True if `directory` is `above`, or below it.
inline bool is_below(std::string_view directory, std::string_view above) noexcept {
  return !above.empty() && starts_with(directory, above) &&
         (directory.size() == above.size() || above == "/" || directory[above.size()] == '/');
}

/// Its last part cut off: "/a" of "/a/b"; "/" of "/a".
inline std::string parent_path(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {};
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

/// `path` as it is seen from `directory`, an absolute one.
inline std::string absolute_path(std::string_view directory, std::string_view path) {
  if (path.empty() || path.front() == '/') return std::string(path);
  while (path.substr(0, 2) == "./") path.remove_prefix(2);
  return std::string(directory) + (directory.empty() || directory.back() != '/' ? "/" : "") + std::string(path);
}

/// The beginning of a regular file that belongs to one of two users, or to root. Empty: it is
/// none, or can't be read. Never waits (a fifo, a device), never follows a link at its end.
inline std::string read_checked_file(const std::string& path, std::size_t limit, uid_t user, bool& foreign) {
  std::string text;
  const file_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat facts = {};
  if (!file || ::fstat(file.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return text;
  if (facts.st_uid != user && facts.st_uid != ::geteuid() && facts.st_uid != 0) {
    foreign = true;
    return text;
  }
  char block[4096];
  while (text.size() < limit) {
    const ssize_t got = ::read(file.get(), block, std::min(sizeof block, limit - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(block, static_cast<std::size_t>(got));
  }
  return text;
}

}  // namespace instance_guard::detail
