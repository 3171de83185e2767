// layer 1: where lock files go on macOS.
#pragma once

#include <pwd.h>
#include <string>
#include <sys/types.h>
#include <vector>

namespace instance_guard::platform {

/// The n-th place to try for the lock directory; empty: no more. The home directory is the one
/// that the user database knows, not $HOME: launchd and a terminal differ in that. Caches would
/// be emptied now and then, Application Support is not.
inline std::string lock_directory_candidate(bool host, uid_t uid, int n) {
  const char* const leaf = "/Library/Application Support/instance_guard";
  if (n > 0) return {};
  if (host) return leaf;
  if (uid == 0) return "/var/run/instance_guard";
  std::vector<char> text(16'384);
  passwd entry = {};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, text.data(), text.size(), &found) != 0 || found == nullptr) return {};
  return std::string(found->pw_dir) + leaf;
}

}  // namespace instance_guard::platform
