// layer 1: who sent a message on a local socket (Linux): unix(7), SCM_CREDENTIALS.
#pragma once

#include <stddef.h>

#include "linux_calls.hpp"

namespace instance_guard::platform {

/// The kernel's struct ucred, which libc hides behind _GNU_SOURCE.
struct credentials {
  pid_t pid;
  uid_t user;
  gid_t group;
};
inline constexpr size_t credentials_size = sizeof(credentials);
inline constexpr int credentials_message = 2;  // SCM_CREDENTIALS

/// True where attest_senders() works.
inline constexpr bool can_attest_senders = true;

/// Makes the kernel attest the sender of each message that arrives at `socket`.
INSTANCE_GUARD_NO_SANITIZE inline int attest_senders(int socket) noexcept {
  return sys::setsockopt_int(socket, SOL_SOCKET, SO_PASSCRED, 1);
}

/// The sending process, from one control message; 0: this is not about senders.
INSTANCE_GUARD_NO_SANITIZE inline pid_t sender_of(int level, int type, const unsigned char* data) noexcept {
  if (level != SOL_SOCKET || type != credentials_message) return 0;
  return reinterpret_cast<const credentials*>(data)->pid;
}

}  // namespace instance_guard::platform
