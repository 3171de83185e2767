// Names that no other test program uses at the same time: locks are global.
#pragma once

#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

namespace support {

/// The names that this process made up. A holder that a test kills leaves its file, as promised;
/// when the test program ends, they go. A forked child that exits leaves them to its parent.
class made_names {
 public:
  made_names() : owner_(::getpid()) {}
  ~made_names() {
    if (::getpid() != owner_) return;
    const std::string user = std::to_string(::geteuid());
    for (const std::string& directory :
         {std::string("/run/instance_guard/"), std::string("/run/lock/instance_guard/"),
          "/tmp/instance_guard-" + user + "/", std::string("/tmp/instance_guard-65534/")})
      for (const std::string& name : names_)
        for (const char* suffix : {".lock", ".lock.new", ".refused"}) ::unlink((directory + name + suffix).c_str());
  }

  std::string next(const std::string& prefix) {
    const std::lock_guard lock(mutex_);
    std::string name = "test-" + prefix + "-" + std::to_string(::getpid()) + "-" + std::to_string(names_.size() + 1);
    names_.push_back(name);
    return name;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> names_;
  pid_t owner_;
};

/// "test-PREFIX-PID-N", within what a lock's name may be if the prefix is short.
inline std::string unique_name(const std::string& prefix) {
  static made_names names;
  return names.next(prefix);
}

}  // namespace support
