// layer 1: what a census asks the system about (Linux) beyond the table of processes.
// posix_census.hpp has the same names.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "../detail/text.hpp"
#include "linux_calls.hpp"
#include "linux_proc.hpp"

namespace instance_guard::platform {

/// What SIGHUP does to a process: 0 it ends it, 1 it is ignored, 2 the program handles or blocks it; or a negated
/// errno.
inline int process_hangup(pid_t pid) noexcept {
  char path[64];
  char text[8192];
  const long size = read_small_file(proc_path(path, pid, "status"), text, sizeof text);
  if (size < 0) return static_cast<int>(size);
  const std::string_view all(text, static_cast<std::size_t>(size));
  constexpr std::string_view keys[] = {"\nSigIgn:\t", "\nSigCgt:\t", "\nSigBlk:\t"};
  for (const std::string_view key : keys) {
    const std::size_t at = all.find(key);
    const std::size_t end = at == std::string_view::npos ? at : all.find('\n', at + key.size());
    if (end == std::string_view::npos || end == at + key.size()) return -ESRCH;
    const char last = all[end - 1];  // of a hexadecimal mask; SIGHUP is its lowest bit
    if (((last >= 'a' ? last - 'a' + 10 : last - '0') & 1) != 0) return key == keys[0] ? 1 : 2;
  }
  return 0;
}

/// A directory, wherever it is.
struct directory_id {
  uint64_t device = 0;
  uint64_t inode = 0;  ///< 0: not known
};

/// The caller's root directory.
inline directory_id root_directory() noexcept {
  struct stat facts;
  return sys::fstatat(AT_FDCWD, "/", &facts, 0) == 0 ? directory_id{facts.st_dev, facts.st_ino} : directory_id();
}

/// True if absolute paths mean the same to this process as to the caller, whose root directory it is.
inline bool shares_root(pid_t pid, const directory_id& root) noexcept {
  char path[64];
  struct stat facts;
  return root.inode != 0 && sys::fstatat(AT_FDCWD, proc_path(path, pid, "root/"), &facts, 0) == 0 &&
         facts.st_dev == root.device && facts.st_ino == root.inode;
}

namespace census {

inline bool is_slow_file_system(std::string_view type) noexcept {
  using detail::same;
  for (const char* each :
       {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "autofs", "lustre", "glusterfs", "fuse"})
    if (same(type, each)) return true;
  return same(type.substr(0, 5), "fuse.") && !same(type, "fuse.fuse-overlayfs") && !same(type, "fuse.lxcfs");
}

/// A field of mountinfo: blanks and the like are written as \040.
inline std::string unescaped_field(std::string_view field) {
  std::string result;
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      result += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0'));
      i += 3;
    } else {
      result += field[i];
    }
  }
  return result;
}

}  // namespace census

/// Where file systems are mounted that may not answer (a server that is away, a stopped program),
/// or that mount something when they are touched.
inline std::vector<std::string> slow_mounts() {
  std::vector<std::string> result;
  std::string text(std::size_t{4} << 20, '\0');
  const long size = read_small_file("/proc/self/mountinfo", text.data(), text.size());
  std::string_view rest(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    // See proc_pid_mountinfo(5): the fifth field is the place, the type follows " - ".
    const std::size_t separator = line.find(" - ");
    if (separator == std::string_view::npos) continue;
    std::string_view type = line.substr(separator + 3);
    if (!census::is_slow_file_system(type.substr(0, type.find(' ')))) continue;
    for (int i = 0; i < 4; ++i) line.remove_prefix(line.find(' ') + 1);
    std::string place = census::unescaped_field(line.substr(0, line.find(' ')));
    if (!detail::same(place, "/")) result.push_back(std::move(place));  // else all is there, this program too
  }
  return result;
}

}  // namespace instance_guard::platform
