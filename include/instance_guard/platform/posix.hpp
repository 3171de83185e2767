// layer 1: the system is any POSIX. linux.hpp and darwin.hpp offer the same names.
//
// Chosen on Linux too with INSTANCE_GUARD_POSIX_ONLY, so that it is tested for real. What it can't
// promise: children are kept together by their process groups alone, so what makes a session of its
// own and loses its parent survives (containment::process_groups, never proven empty); strays are
// not found; a dead holder's children are not seen by whoever comes next, unless its warden lives.
#pragma once

#include "posix_calls.hpp"          // IWYU pragma: export
#include "posix_clone.hpp"          // IWYU pragma: export
#include "posix_control_group.hpp"  // IWYU pragma: export
#include "posix_inspect.hpp"        // IWYU pragma: export
#include "posix_lock.hpp"           // IWYU pragma: export
#include "posix_mark.hpp"           // IWYU pragma: export
#include "posix_owner.hpp"          // IWYU pragma: export
#include "posix_places.hpp"         // IWYU pragma: export
#include "posix_proc.hpp"           // IWYU pragma: export
#include "posix_process.hpp"        // IWYU pragma: export
#include "posix_socket.hpp"         // IWYU pragma: export
