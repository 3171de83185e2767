// layer 1: what only a census and the table of processes ask the system for; platform.hpp is the
// rest.
#pragma once

#include "platform.hpp"

#if defined(__linux__) && !defined(INSTANCE_GUARD_POSIX_ONLY)
#include "linux_census.hpp"  // IWYU pragma: export
#include "linux_table.hpp"   // IWYU pragma: export
#else
#include "posix_census.hpp"  // IWYU pragma: export
#include "posix_table.hpp"   // IWYU pragma: export
#endif
