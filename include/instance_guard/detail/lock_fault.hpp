// layer 3: why a lock could not be taken, with the path and the cure, in words.
#pragma once

#include <pwd.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "../error.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// "knox", or the number where it has no name.
inline std::string user_name(uid_t uid) {
  char buffer[4096];
  passwd entry = {};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr && found->pw_name != nullptr)
    return found->pw_name;
  return std::to_string(uid);
}

/// A fault, or none. `what` names the path, `cure` is what to do about it (or empty).
struct lock_fault {
  std::error_code code = {};
  std::string what = {};
  std::string cure = {};
  bool add_reason = false;  ///< `what` does not say it yet: the code's message follows

  explicit operator bool() const noexcept { return static_cast<bool>(code); }

  /// One line and, with a cure, a second one.
  std::string explanation() const {
    if (!code) return {};
    const std::string reason = add_reason ? code.message() : std::string();
    return joined({what, add_reason ? ": " : "", reason, cure.empty() ? "" : "\n  cure     ", cure});
  }

  /// For an exception, whose what() adds the code's message.
  std::string exception_text() const { return cure.empty() ? what : joined({what, " (cure: ", cure, ")"}); }
};

/// The same of an explanation: its reason, if that is the code's message, would be said twice.
inline std::string exception_text(std::string_view explanation, std::error_code why) {
  const std::size_t line = explanation.find('\n');
  std::string_view what = explanation.substr(0, line);
  const std::string reason = joined({": ", why.message()});
  if (what.size() > reason.size() && same(what.substr(what.size() - reason.size()), reason))
    what.remove_suffix(reason.size());
  if (line == std::string_view::npos) return std::string(what);
  constexpr std::string_view label = "\n  cure     ";
  std::string_view cure = explanation.substr(line);
  cure.remove_prefix(same(cure.substr(0, label.size()), label) ? label.size() : 1);
  return joined({what, " (cure: ", cure, ")"});
}

inline lock_fault make_fault(std::error_code code, std::string what, std::string_view cure = {}) {
  return {code, std::move(what), std::string(cure), false};
}

/// The name can't be had, which the code says: it is somebody else's, or no name.
inline lock_fault refusal_fault(errc why, std::string what) {
  return {make_error_code(why), std::move(what), {}, true};
}

/// A refused system call on `path`, with the cure for the ordinary causes.
inline lock_fault system_fault(int negated_errno, std::string_view path, std::string_view action) {
  const int number = -negated_errno;
  const std::error_code code(number, std::system_category());
  const char* cure = "";  // a literal into a std::string: a template for each length
  switch (number) {
    case EROFS: cure = "lock_options.directory on a file system that can be written"; break;
    case ENOSPC:
    case EDQUOT: cure = "make room there, or lock_options.directory elsewhere"; break;
    case EFBIG: cure = "raise the limit of file sizes (ulimit -f)"; break;
    case EMFILE: cure = "close descriptors, or raise their limit (ulimit -n)"; break;
    case ENFILE: cure = "the host is out of open files (fs.file-max)"; break;
    case ENOLCK: cure = "the file system or kernel is out of locks; lock_options.directory elsewhere"; break;
    case EACCES:
    case EPERM: cure = "give this user access, or lock_options.directory elsewhere"; break;
    case ENOENT: cure = "make the directory above it, or lock_options.directory elsewhere"; break;
    case EOPNOTSUPP:
    case ENOSYS: cure = "lock_options.directory on a file system with locks"; break;
    default: break;
  }
  return {code, joined({path, " ", action}), cure, true};
}

}  // namespace instance_guard::detail
