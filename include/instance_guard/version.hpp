// layer 1: the version of this library, in one place; CMake reads it from here.
#pragma once

#define INSTANCE_GUARD_VERSION_MAJOR 0
#define INSTANCE_GUARD_VERSION_MINOR 1
#define INSTANCE_GUARD_VERSION_PATCH 0

namespace instance_guard {

/// The version as one number that grows: 1.2.3 is 10203.
inline constexpr int version =
    INSTANCE_GUARD_VERSION_MAJOR * 10000 + INSTANCE_GUARD_VERSION_MINOR * 100 + INSTANCE_GUARD_VERSION_PATCH;

}  // namespace instance_guard
