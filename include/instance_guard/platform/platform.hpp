// layer 1: chooses the system. Only this and platform_census.hpp ask which one it is.
#pragma once

#if defined(__linux__) && !defined(INSTANCE_GUARD_POSIX_ONLY)
#include "linux.hpp"  // IWYU pragma: export
#elif defined(__APPLE__) && !defined(INSTANCE_GUARD_POSIX_ONLY)
#include "darwin.hpp"  // IWYU pragma: export
#else
#include "posix.hpp"  // IWYU pragma: export
#endif
