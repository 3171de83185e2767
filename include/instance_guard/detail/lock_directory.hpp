// layer 3: the directory of the lock files: found without the environment, and checked.
//
// HOME, TMPDIR and XDG_RUNTIME_DIR differ between a service manager and a terminal; a directory
// that depends on them lets two instances run. A directory that a stranger can change is refused.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "../file_descriptor.hpp"
#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "lock_fault.hpp"

namespace instance_guard::detail {

/// An open, checked directory; or the fault.
struct lock_directory {
  file_descriptor descriptor = {};
  std::filesystem::path path = {};
  lock_fault fault = {};
};

enum class directory_use { take, look };  ///< look: make nothing

/// The cure for most of what is wrong with one.
inline constexpr std::string_view another_directory = "lock_options.directory elsewhere";

/// What is wrong with a directory, if anything. `own_only`: it must be the caller's (a default
/// one below /tmp), not just root's.
inline lock_fault check_directory(const std::string& path, const struct stat& facts, bool own_only) {
  const uid_t self = ::geteuid();
  if (facts.st_uid != self && (own_only || facts.st_uid != 0))
    return make_fault(
        errc::unsafe_directory, joined({path, " belongs to user ", user_name(facts.st_uid)}),
        own_only ? joined({"rm -r ", path, "   as root, or ", another_directory}) : std::string(another_directory));
  const bool others_write = (facts.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  const bool sticky = (facts.st_mode & S_ISVTX) != 0;
  if (others_write && (own_only || !sticky))
    return make_fault(errc::unsafe_directory, joined({path, " can be written by others than its owner"}),
                      joined({"chmod go-w ", path, "   or ", another_directory}));
  return {};
}

/// Opens one directory, made if need be and if its parent is there.
inline lock_directory open_directory(const std::string& path, mode_t mode, bool own_only, directory_use use,
                                     bool allow_network) {
  lock_directory result;
  result.path = path;
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int opened = platform::sys::open(path.c_str(), flags);
  if (opened == -ENOENT && use == directory_use::take) {
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
      result.fault = system_fault(-errno, path, "cannot be made");
      return result;
    }
    opened = platform::sys::open(path.c_str(), flags);
  }
  struct stat facts = {};
  if (opened == -ELOOP || opened == -ENOTDIR) {
    const bool link = ::lstat(path.c_str(), &facts) == 0 && S_ISLNK(facts.st_mode);
    result.fault = make_fault(errc::unsafe_directory, joined({path, link ? " is a symbolic link" : " is no directory"}),
                              link       ? joined({"name its target, or rm ", path})
                              : own_only ? joined({"rm ", path})
                                         : std::string(another_directory));
    return result;
  }
  if (opened < 0) {
    result.fault = system_fault(opened, path, "cannot be opened");
    return result;
  }
  result.descriptor.reset(opened);
  if (opened <= 2) {
    std::error_code ec;
    result.descriptor = duplicate(opened, ec);
    if (ec) {
      result.fault = system_fault(-ec.value(), path, "cannot be opened");
      return result;
    }
  }
  const int seen = platform::sys::fstat(result.descriptor.get(), &facts);
  if (seen != 0) result.fault = system_fault(seen, path, "cannot be read");
  else result.fault = check_directory(path, facts, own_only);
  if (!result.fault && !allow_network && platform::is_network_file_system(result.descriptor.get()))
    result.fault = make_fault(errc::network_file_system,
                              joined({path, " is on a network file system, whose locks can't be trusted"}),
                              "lock_options.directory on a local one, or allow_network_file_system");
  if (result.fault) result.descriptor.reset();
  return result;
}

/// Opens the directory that `options` mean.
inline lock_directory open_lock_directory(const lock_options& options, directory_use use) {
  const bool host = options.scope == lock_scope::host;
  if (!options.directory.empty()) {
    if (options.directory.native().find('\0') != std::string::npos) {
      lock_directory result;
      result.fault = make_fault(std::make_error_code(std::errc::invalid_argument),
                                "lock_options.directory: a NUL in it", another_directory);
      return result;
    }
    std::error_code ec;
    std::filesystem::path path = std::filesystem::absolute(options.directory, ec).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();  // "dir/" names a link's target, "dir" the link
    return open_directory(path.string(), host ? 0755 : 0700, false, use, options.allow_network_file_system);
  }
  lock_directory first;
  for (int n = 0;; ++n) {
    const std::string path = platform::lock_directory_candidate(host, ::geteuid(), n);
    if (path.empty()) return first;
    lock_directory found =
        open_directory(path, 0700, !host, host ? directory_use::look : use, options.allow_network_file_system);
    if (host && is(found.fault.code, std::errc::no_such_file_or_directory)) {
      found.fault.what = joined({path, " does not exist"});
      found.fault.cure =
          joined({"mkdir -m 1777 ", path, "   as root, at each boot (tmpfiles.d), or lock_options.directory"});
    }
    // Only what a stranger did is a reason to go elsewhere; the socket lock then decides.
    if (!found.fault || !is(found.fault.code, errc::unsafe_directory) || host) return found;
    struct stat facts = {};
    if (::lstat(path.c_str(), &facts) == 0 && facts.st_uid == ::geteuid() && S_ISDIR(facts.st_mode)) return found;
    if (n == 0) first = std::move(found);
  }
}

}  // namespace instance_guard::detail
