// layer 1: where lock files go on a system of which nothing more is known.
#pragma once

#include <string>
#include <sys/types.h>

namespace instance_guard::platform {

/// The n-th place to try for the lock directory; empty: no more. Nothing in it depends on the
/// environment. Where /tmp is shared, a stranger may have made the first one.
inline std::string lock_directory_candidate(bool host, uid_t uid, int n) {
  if (host) return n == 0 ? "/run/lock/instance_guard" : "";
  if (uid == 0) return n == 0 ? "/run/instance_guard" : "";
  if (n > 9) return {};
  const std::string base = "/tmp/instance_guard-" + std::to_string(uid);
  return n == 0 ? base : base + "." + std::to_string(n);
}

}  // namespace instance_guard::platform
