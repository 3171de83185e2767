// layer 1: the system is Linux. posix.hpp and darwin.hpp offer the same names.
#pragma once

#include "linux_calls.hpp"          // IWYU pragma: export
#include "linux_clone.hpp"          // IWYU pragma: export
#include "linux_control_group.hpp"  // IWYU pragma: export
#include "linux_inspect.hpp"        // IWYU pragma: export
#include "linux_lock.hpp"           // IWYU pragma: export
#include "linux_mark.hpp"           // IWYU pragma: export
#include "linux_owner.hpp"          // IWYU pragma: export
#include "linux_proc.hpp"           // IWYU pragma: export
#include "linux_process.hpp"        // IWYU pragma: export
#include "linux_socket.hpp"         // IWYU pragma: export
#include "linux_syscall.hpp"        // IWYU pragma: export
