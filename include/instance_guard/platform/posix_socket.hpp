// layer 1: who sent a message on a local socket: POSIX does not say.
//
// The names of linux_socket.hpp. The channel is a pair that only owner and warden have, and a
// message on it counts as the owner's.
#pragma once

#include "posix_calls.hpp"

namespace instance_guard::platform {

inline constexpr size_t credentials_size = 0;

inline constexpr bool can_attest_senders = false;

INSTANCE_GUARD_NO_SANITIZE inline int attest_senders(int) noexcept { return 0; }
INSTANCE_GUARD_NO_SANITIZE inline pid_t sender_of(int, int, const unsigned char*) noexcept { return 0; }

}  // namespace instance_guard::platform
