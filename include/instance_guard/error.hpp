// layer 1: how instance-guard reports that something went wrong.
//
// Every fallible call exists twice, as in <filesystem>: one form throws, the other is
// noexcept and takes a std::error_code&. Codes of this library compare equal to errc below;
// codes of the system come through unchanged (std::errc::too_many_files_open, ...).
// Thread-safe. Nothing here may be called from a signal handler.
#pragma once

#include <chrono>
#include <limits>
#include <string>
#include <system_error>

#if defined(__cpp_exceptions)
#define INSTANCE_GUARD_EXCEPTIONS 1
#else
#define INSTANCE_GUARD_EXCEPTIONS 0
#endif

namespace instance_guard {

/// "Wait as long as it takes." Arithmetic on deadlines saturates, it never overflows.
inline constexpr auto no_limit = std::chrono::milliseconds::max();

/// What can go wrong beyond the errors of the system.
enum class errc {
  already_running = 1,  ///< another live process has the name; equals errc::device_or_resource_busy
  still_cleaning_up,    ///< its holder is dead, its children are not yet; equals device_or_resource_busy
  lock_lost,            ///< the lock was taken away (file replaced, descriptor closed): stop working
  warden_lost,          ///< the warden is dead or stopped: children would outlive a crash
  unsafe_directory,     ///< the lock directory could be changed by a stranger
  invalid_name,         ///< not [A-Za-z0-9._@:+-]{1,64}, or a reserved one
  network_file_system,  ///< locks can't be trusted there; see lock_options
  threads_running,      ///< must be called before the program starts threads
  managed_holder,       ///< the holder belongs to a service manager that would restart it
  credentials_changed,  ///< the owner's identity is no longer the warden's
  timed_out             ///< the given time passed
};

}  // namespace instance_guard

template <>
struct std::is_error_code_enum<instance_guard::errc> : std::true_type {};

namespace instance_guard {

/// The category of errc; its name is "instance_guard".
class error_category_type final : public std::error_category {
 public:
  const char* name() const noexcept override { return "instance_guard"; }

  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::already_running: return "already running";
      case errc::still_cleaning_up: return "the last holder is dead, its children are still being ended";
      case errc::lock_lost: return "the lock was lost";
      case errc::warden_lost: return "the warden is dead or stopped";
      case errc::unsafe_directory: return "the directory can be changed by others";
      case errc::invalid_name: return "a name is 1 to 64 of A-Z a-z 0-9 . _ @ : + - and neither . nor ..";
      case errc::network_file_system: return "the directory is on a network file system";
      case errc::threads_running: return "the program already has threads";
      case errc::managed_holder: return "the holder belongs to a service manager";
      case errc::credentials_changed: return "the owner changed its credentials";
      case errc::timed_out: return "timed out";
    }
    return "unknown error";
  }

  std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<errc>(value)) {
      case errc::already_running:
      case errc::still_cleaning_up: return std::errc::device_or_resource_busy;
      case errc::timed_out: return std::errc::timed_out;
      default: return {value, *this};
    }
  }
};

/// The one object of the category.
inline const std::error_category& error_category() noexcept {
  static const error_category_type instance;
  return instance;
}

inline std::error_code make_error_code(errc value) noexcept { return {static_cast<int>(value), error_category()}; }

namespace detail {

/// `code == why`, which takes a compiler longer each time it is written.
inline bool is(const std::error_code& code, errc why) noexcept { return code == make_error_code(why); }
inline bool is(const std::error_code& code, std::errc why) noexcept { return code == why; }

}  // namespace detail

}  // namespace instance_guard
