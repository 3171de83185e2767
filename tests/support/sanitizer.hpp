// What a sanitizer makes of a program.
#pragma once

namespace support {

/// ThreadSanitizer runs a thread of its own in each program. Beside threads a guard leaves the environment as it is,
/// and daemonize() is refused: what is promised to a program with one thread can't be shown.
#ifdef __SANITIZE_THREAD__
inline constexpr bool always_threaded = true;
#else
inline constexpr bool always_threaded = false;
#endif

/// AddressSanitizer finds the stack by /proc: without that it takes an exception for a fault of memory.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool needs_proc = true;
#else
inline constexpr bool needs_proc = false;
#endif

}  // namespace support
