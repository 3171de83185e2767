// A control group that looks like a service manager's, where the kernel and the rights allow it.
#pragma once

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "process_census.hpp"
#include "wait_until.hpp"

namespace support {

class [[nodiscard]] service_cgroup {
 public:
  /// Below the test's own group: "NAME.service".
  explicit service_cgroup(const std::string& name) : name_(name + ".service") {
    std::istringstream mounts(detail::contents("/proc/self/mountinfo"));
    std::string root;
    for (std::string line; std::getline(mounts, line);) {
      if (line.find(" - cgroup2 ") == std::string::npos) continue;
      std::istringstream fields(line);
      for (int i = 0; i < 5; ++i) fields >> root;
    }
    std::istringstream groups(detail::contents("/proc/self/cgroup"));
    for (std::string line; !root.empty() && std::getline(groups, line);)
      if (line.starts_with("0::")) path_ = root + line.substr(3) + "/" + name_;
    if (path_.empty() || ::mkdir(path_.c_str(), 0755) != 0) path_.clear();
  }
  service_cgroup(const service_cgroup&) = delete;
  service_cgroup& operator=(const service_cgroup&) = delete;
  /// Whatever is in it must be ending.
  ~service_cgroup() {
    if (!path_.empty()) wait_until([&] { return ::rmdir(path_.c_str()) == 0 || errno != EBUSY; });
  }

  /// False where there are no such groups, or they are not this user's.
  bool possible() const { return !path_.empty(); }
  bool add(pid_t pid) const {
    return (std::ofstream(path_ + "/cgroup.procs") << pid).flush().good();
  }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::string path_;
};

}  // namespace support
