// A directory that goes with its object.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace support {

class [[nodiscard]] temporary_directory {
 public:
  temporary_directory() {
    std::string path = (std::filesystem::temp_directory_path() / "instance_guard_test.XXXXXX");
    if (::mkdtemp(path.data()) == nullptr) throw std::system_error(errno, std::generic_category());
    path_ = path;
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  // A process forked by the test must not take it away.
  ~temporary_directory() {
    std::error_code ignored;
    if (::getpid() == creator_) std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const noexcept { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

  /// Lets every user read, write and make files in it.
  void open_to_all() const {
    if (::chmod(path_.c_str(), 0777) != 0) throw std::system_error(errno, std::generic_category());
  }

 private:
  std::filesystem::path path_;
  pid_t creator_ = ::getpid();
};

}  // namespace support
