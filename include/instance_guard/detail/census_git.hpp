// layer 4: which commit a checkout had at some time, by its reflog.
//
// Git is not run, and nothing of the repository is believed or followed but bounded reads of
// .git (a directory, or the file that names one), logs/HEAD, config, index. Files that belong to neither
// the caller nor the process's user nor root are not read (as git does with safe.directory).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "../file_descriptor.hpp"
#include "census_index.hpp"
#include "census_path.hpp"

namespace instance_guard::detail {

struct git_checkout {
  std::string root = {};       ///< the working tree; empty: there is none
  std::string directory = {};  ///< .git, or what it names
  std::string common = {};     ///< what all working trees of the repository share
  bool foreign = false;        ///< it is somebody else's: not read
};

/// The text of a file of one line, behind `prefix`.
inline std::string one_line_file(const std::string& path, std::string_view prefix, uid_t user, bool& foreign) {
  const std::string text = read_checked_file(path, 4096, user, foreign);
  if (!starts_with(text, prefix)) return {};
  const std::size_t end = std::min(text.find_first_of("\r\n"), text.size());
  return text.substr(prefix.size(), end - prefix.size());
}

/// The checkout that an absolute path without links is in.
inline git_checkout find_checkout(std::string_view path, uid_t user, const slow_places& slow) {
  git_checkout result;
  std::string at(path);
  for (int depth = 0; depth < 64 && at.size() > 1; ++depth) {
    at = parent_path(at);
    const std::string inside = (at == "/" ? "" : at) + "/.git";
    struct stat facts = {};
    if (slow.contain(at)) return result;
    if (::lstat(inside.c_str(), &facts) != 0) continue;
    if (!S_ISDIR(facts.st_mode) && !S_ISREG(facts.st_mode)) return result;
    result.root = at;
    if (facts.st_uid != user && facts.st_uid != ::geteuid() && facts.st_uid != 0) {
      result.foreign = true;
      return result;
    }
    if (S_ISDIR(facts.st_mode)) {
      result.directory = inside;
    } else {
      const std::string named = one_line_file(inside, "gitdir: ", user, result.foreign);
      const followed_path there = follow_path(absolute_path(at, named), slow);
      if (S_ISDIR(there.facts.st_mode)) result.directory = there.path;
    }
    if (result.directory.empty()) return result;
    const std::string common = one_line_file(result.directory + "/commondir", "", user, result.foreign);
    result.common = common.empty() ? result.directory : follow_path(absolute_path(result.directory, common), slow).path;
    return result;
  }
  return result;
}

/// How a checkout has moved since some time.
struct git_move {
  enum class reading { nothing, moved, unreadable, foreign, too_long } how = reading::nothing;
  std::string from = {};
  std::string to = {};  ///< HEAD now; where nothing moved only if the reflog tells that from the start on
  std::size_t updates = 0;
  bool apart = false;  ///< HEAD was set to a commit that the files are not of
  std::chrono::system_clock::time_point newest = {};
};

struct reflog_line {
  std::string_view from = {};
  std::string_view to = {};
  std::int64_t at = 0;
  std::string_view message = {};
};

/// "OLD NEW Name <mail> SECONDS ZONE\tmessage". False: it is no such line.
inline bool parse_reflog_line(std::string_view line, reflog_line& out) noexcept {
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) return false;
  out.from = line.substr(0, first);
  out.to = line.substr(first + 1, second - first - 1);
  for (const std::string_view hash : {out.from, out.to}) {
    if (hash.size() != 40 && hash.size() != 64) return false;
    if (hash.find_first_not_of("0123456789abcdef") != std::string_view::npos) return false;
  }
  const std::size_t tab = line.find('\t');
  const std::string_view head = line.substr(0, tab);
  out.message = tab == std::string_view::npos ? std::string_view() : line.substr(tab + 1);
  const std::size_t mail = head.rfind("> ");
  if (mail == std::string_view::npos) return false;
  out.at = 0;
  std::size_t i = mail + 2;
  for (; i < head.size() && head[i] >= '0' && head[i] <= '9' && out.at < INT64_MAX / 16; ++i)
    out.at = out.at * 10 + (head[i] - '0');
  return i > mail + 2;
}

/// "pick" of "pull --rebase (pick): message", or of "rebase (pick): message".
inline std::string_view step_of_rebase(std::string_view message) noexcept {
  if (!starts_with(message, "rebase") && !starts_with(message, "pull")) return {};
  message = message.substr(0, message.find("): "));
  const std::size_t open = message.rfind(" (");
  return open == std::string_view::npos ? std::string_view() : message.substr(open + 2);
}

enum class file_change { none, perhaps, sure };

/// Whether a move of HEAD has changed files. A commit writes down what was there already, but for a
/// merge whose conflicts were resolved first. A rebase is one update, at its start. What a reset is
/// does not tell: --soft and --mixed change no file.
inline file_change changes_files(const reflog_line& entry) noexcept {
  const std::string_view what = entry.message;
  if (entry.from == entry.to || starts_with(what, "Branch: renamed")) return file_change::none;
  if (starts_with(what, "commit (merge)") || starts_with(what, "reset:")) return file_change::perhaps;
  if (starts_with(what, "commit")) return file_change::none;
  if (const std::string_view step = step_of_rebase(what); !step.empty())
    return step == "start" ? file_change::sure : file_change::none;
  // Of git before 2.26.
  return !starts_with(what, "rebase") || starts_with(what, "rebase: checkout") ? file_change::sure : file_change::none;
}

/// Goes through the lines of a text, from its last one back, while they are later than `since`.
/// `last_write()`: of the checkout's files, in seconds. False: the text began before such a line
/// was found, or something is missing between that and the next.
template <class Question>
bool read_reflog_back(std::string_view text, std::int64_t since, Question last_write, git_move& out) {
  out = git_move();
  while (!text.empty()) {
    if (text.back() == '\n') text.remove_suffix(1);
    const std::size_t begin = text.rfind('\n');
    const std::string_view line = text.substr(begin == std::string_view::npos ? 0 : begin + 1);
    text = text.substr(0, begin == std::string_view::npos ? 0 : begin + 1);
    reflog_line entry;
    if (!parse_reflog_line(line, entry)) continue;
    if (out.to.empty()) out.to = entry.to;
    // Lines expire one by one, and HEAD may be set without one: by checkout --orphan, by symbolic-ref.
    if (entry.at <= since) return out.from.empty() || out.from == entry.to;
    out.from = entry.from;
    const file_change change = changes_files(entry);
    if (change == file_change::none) continue;
    if (change == file_change::perhaps) {
      // A reset writes its files just before its line (2 s: clocks of file systems), a merge at any time before.
      const bool reset = starts_with(entry.message, "reset");
      if (last_write() < (reset ? std::max(since, entry.at - 2) : since)) {
        out.apart = out.apart || reset;
        continue;
      }
    }
    ++out.updates;
    const auto at = std::chrono::system_clock::time_point(std::chrono::seconds(entry.at));
    if (at > out.newest) out.newest = at;
  }
  return false;
}

/// True if the repository has only the newest of its history ("git clone --depth 1"): whoever counts
/// commits there, git included, may count too few or too many.
inline bool is_shallow(const git_checkout& checkout) {
  struct stat facts = {};
  return ::lstat((checkout.common + "/shallow").c_str(), &facts) == 0;
}

/// At most 64 MiB of it.
inline std::string read_index(const git_checkout& checkout, uid_t user) {
  bool foreign = false;
  return read_checked_file(checkout.directory + "/index", std::size_t{64} << 20, user, foreign);
}

/// Of a branch that has none: yet, or any more.
inline bool is_no_commit(std::string_view name) noexcept {
  return name.find_first_not_of('0') == std::string_view::npos;
}

/// From the reflog of HEAD. Reads 8 MiB of its end at most.
inline git_move moved_since(const git_checkout& checkout, std::chrono::system_clock::time_point start, uid_t user) {
  git_move result;
  const auto fault = [&](git_move::reading how) {
    result = git_move();
    result.how = how;
    return result;
  };
  if (checkout.foreign) return fault(git_move::reading::foreign);
  if (checkout.directory.empty()) return result;
  const file_descriptor file(
      ::open((checkout.directory + "/logs/HEAD").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat facts = {};
  if (!file) return fault(errno == ENOENT ? git_move::reading::nothing : git_move::reading::unreadable);
  if (::fstat(file.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return fault(git_move::reading::unreadable);
  if (facts.st_uid != user && facts.st_uid != ::geteuid() && facts.st_uid != 0)
    return fault(git_move::reading::foreign);
  // A second more: neither clock is finer than that.
  const std::int64_t since = std::chrono::duration_cast<std::chrono::seconds>(start.time_since_epoch()).count() + 1;
  std::string text;
  std::int64_t newest = -1;
  const auto last_write = [&] {
    if (newest < 0) newest = newest_in_index(read_index(checkout, user), result.to.size() / 2);
    return newest;
  };
  for (off_t window = off_t{64} << 10; window <= off_t{8} << 20; window *= 4) {
    const off_t begin = std::max(off_t{0}, facts.st_size - window);
    text.assign(static_cast<std::size_t>(facts.st_size - begin), '\0');
    std::size_t used = 0;
    while (used < text.size()) {
      const ssize_t got = ::pread(file.get(), text.data() + used, text.size() - used, begin + static_cast<off_t>(used));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      used += static_cast<std::size_t>(got);
    }
    std::string_view whole(text.data(), used);
    if (begin > 0) whole.remove_prefix(std::min(whole.find('\n'), whole.size() - 1) + 1);
    const bool reached = read_reflog_back(whole, since, last_write, result);
    if (!reached && begin > 0) continue;
    // Without a line from before the start it was cloned since: what was there is not known.
    if (!reached || result.updates == 0 || result.from == result.to || is_no_commit(result.to)) {
      const std::string head = reached && !result.apart && !is_no_commit(result.to) ? result.to : std::string();
      fault(git_move::reading::nothing);
      result.to = head;
      return result;
    }
    result.how = git_move::reading::moved;
    return result;
  }
  return fault(git_move::reading::too_long);
}

/// Whether a file, or a directory, is one of the checkout's.
inline is_tracked is_of_checkout(const git_checkout& checkout, std::string_view path, std::string_view commit,
                                 uid_t user) {
  if (!is_below(path, checkout.root)) return is_tracked::no;
  while (ends_with(path, "/.")) path.remove_suffix(2);
  path.remove_prefix(std::min(path.size(), checkout.root.size() + 1));
  return find_in_index(read_index(checkout, user), path, commit.size() / 2);
}

/// "github.com/knox/shiva" of any spelling of an address.
inline std::string plain_address(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const bool has_scheme = scheme != std::string_view::npos;
  if (has_scheme) url.remove_prefix(scheme + 3);
  const std::size_t slash = url.find('/');
  const std::size_t at = url.substr(0, slash).rfind('@');
  if (at != std::string_view::npos) url.remove_prefix(at + 1);
  std::string result(url);
  const std::size_t colon = result.find(':');
  if (!has_scheme && colon != std::string::npos && colon < result.find('/')) result[colon] = '/';
  while (!result.empty() && result.back() == '/') result.pop_back();
  if (ends_with(result, ".git")) result.resize(result.size() - 4);
  return result;
}

/// The address of the remote "origin" in the text of a config file; empty: none.
inline std::string origin_of_config(std::string_view text) {
  bool inside = false;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    if (starts_with(line, "[")) inside = starts_with(line, "[remote \"origin\"]");
    if (!inside || !starts_with(line, "url")) continue;
    const std::size_t sign = line.find('=');
    if (sign == std::string_view::npos) continue;
    line.remove_prefix(sign + 1);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r')) line.remove_suffix(1);
    return std::string(line);
  }
  return {};
}

/// Equal for two checkouts: they are of the same repository. Empty: can't be told.
inline std::string repository_of(const git_checkout& checkout, uid_t user, const slow_places& slow, int depth = 0) {
  if (checkout.common.empty() || checkout.foreign) return {};
  bool foreign = false;
  const std::string origin = origin_of_config(read_checked_file(checkout.common + "/config", 65'536, user, foreign));
  std::string_view local = origin;
  if (starts_with(local, "file://")) local.remove_prefix(7);
  if (starts_with(local, "/") && depth < 3) {
    // A clone of a clone: what that one is of.
    const followed_path there = follow_path(local, slow);
    if (there.path.empty()) return std::string(local);
    const git_checkout source = find_checkout(there.path + "/.", user, slow);
    return source.root == there.path ? repository_of(source, user, slow, depth + 1) : there.path;
  }
  return origin.empty() ? checkout.common : plain_address(origin);
}

}  // namespace instance_guard::detail
