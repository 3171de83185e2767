// layer 3: the name of a lock, and what is derived from it.
//
// No allocation: fixed text, so that it can also be used where nothing may fail.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>
#include <sys/types.h>

#include "../pid_lockfile_types.hpp"

namespace instance_guard::detail {

inline constexpr std::size_t max_lock_name = 64;

/// A name that follows the rule, folded to lower case: file systems of macOS do it anyway, and
/// a wallet's address is written in both. Empty: it did not follow the rule.
struct lock_name {
  char text[max_lock_name + 1] = {};
  std::size_t size = 0;

  lock_name() noexcept = default;
  explicit lock_name(std::string_view from) noexcept {
    if (from.empty() || from.size() > max_lock_name || from == "." || from == "..") return;
    for (std::size_t i = 0; i < from.size(); ++i) {
      const char c = from[i];
      const bool upper = c >= 'A' && c <= 'Z';
      const bool allowed = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                           (c != '\0' && std::strchr("._@:+-", c) != nullptr);
      if (!allowed) return;
      text[i] = upper ? static_cast<char>(c - 'A' + 'a') : c;
    }
    text[from.size()] = '\0';
    size = from.size();
  }

  explicit operator bool() const noexcept { return size != 0; }
  std::string_view view() const noexcept { return {text, size}; }
};

inline constexpr char lock_suffix[] = ".lock";        // the lock and its record
inline constexpr char refused_suffix[] = ".refused";  // starts that were refused
inline constexpr char new_suffix[] = ".lock.new";     // a lock file that is being put back

/// NAME and a suffix, as a file of the lock directory.
struct lock_file_name {
  char text[max_lock_name + sizeof new_suffix] = {};

  lock_file_name() noexcept = default;
  lock_file_name(std::string_view name, std::string_view suffix) noexcept {
    std::memcpy(text, name.data(), name.size());
    std::memcpy(text + name.size(), suffix.data(), suffix.size());
    text[name.size() + suffix.size()] = '\0';
  }
};

/// What the socket lock is bound to. In scope user the uid is part of it, so users don't meet.
struct socket_name {
  char text[108] = {};
  std::size_t size = 0;

  socket_name(lock_scope scope, uid_t uid, std::string_view name) noexcept {
    add("instance_guard/");
    if (scope == lock_scope::host) {
      add("host/");
    } else {
      add("user/");
      char digits[16];
      std::size_t count = 0;
      do {
        digits[count++] = static_cast<char>('0' + uid % 10);
        uid /= 10;
      } while (uid != 0);
      while (count > 0) add({&digits[--count], 1});
      add("/");
    }
    add(name);
  }
  std::string_view view() const noexcept { return {text, size}; }

 private:
  void add(std::string_view part) noexcept {
    std::memcpy(text + size, part.data(), part.size());
    size += part.size();
  }
};

}  // namespace instance_guard::detail
