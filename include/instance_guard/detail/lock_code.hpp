// layer 3: whether a holder runs code that has been replaced on disk since it started.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "text.hpp"
#include "unix_time.hpp"

namespace instance_guard::detail {

inline std::chrono::system_clock::time_point change_time(const struct stat& facts) noexcept {
  return from_unix_milliseconds(static_cast<std::int64_t>(facts.st_ctime) * 1000);
}

/// True if the executable of a living holder was replaced or deleted, and when; false: it was not, or
/// it can't be told. Of a deleted file only the directory's last change is known.
inline bool code_replaced_at(const lock_record& record, std::chrono::system_clock::time_point& when) {
  if (record.executable.empty() || record.executable_inode == 0 || !is_alive_here(record.process)) return false;
  // As the holder sees its file system: it may have another root.
  char prefix[64];
  std::string root = platform::proc_path(prefix, record.process.pid, "root");
  struct stat now = {};
  if (::stat(joined({root, "/"}).c_str(), &now) != 0) root.clear();
  // Linux marks a deleted file in the link; a record written after that has the mark too.
  std::string path = record.executable;
  constexpr std::string_view deleted = " (deleted)";
  if (path.size() > deleted.size() && path.compare(path.size() - deleted.size(), deleted.size(), deleted) == 0)
    path.erase(path.size() - deleted.size());
  if (::stat(joined({root, path}).c_str(), &now) == 0) {
    if (static_cast<std::uint64_t>(now.st_dev) == record.executable_device &&
        static_cast<std::uint64_t>(now.st_ino) == record.executable_inode)
      return false;
    when = change_time(now);
    return true;
  }
  if (errno != ENOENT && errno != ENOTDIR) return false;
  const std::string parent = std::filesystem::path(joined({root, path})).parent_path().string();
  when = ::stat(parent.c_str(), &now) == 0 ? change_time(now) : record.acquired_at;
  return true;
}

}  // namespace instance_guard::detail
