// layer 1: the system is macOS. linux.hpp and posix.hpp offer the same names.
//
// What POSIX offers, from posix_*.hpp; a file of that name in darwin_*.hpp takes the place of the
// POSIX one where the system can do better. Still the POSIX ones, and so less than is possible:
//
//   posix_calls    a channel of messages: there is no SOCK_SEQPACKET on AF_UNIX
//   posix_proc     processes, parents and start times: sysctl(3), proc_pidinfo
//   posix_inspect  marks of strays in other processes: sysctl KERN_PROCARGS2
//   posix_process  the end of an owner without a pipe: kqueue(2), NOTE_EXIT
#pragma once

#include "darwin_places.hpp"        // IWYU pragma: export
#include "posix_calls.hpp"          // IWYU pragma: export
#include "posix_clone.hpp"          // IWYU pragma: export
#include "posix_control_group.hpp"  // IWYU pragma: export
#include "posix_inspect.hpp"        // IWYU pragma: export
#include "posix_lock.hpp"           // IWYU pragma: export
#include "posix_mark.hpp"           // IWYU pragma: export
#include "posix_owner.hpp"          // IWYU pragma: export
#include "posix_proc.hpp"           // IWYU pragma: export
#include "posix_process.hpp"        // IWYU pragma: export
#include "posix_socket.hpp"         // IWYU pragma: export
