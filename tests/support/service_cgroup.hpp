// A control group that looks like a service manager's, where the kernel and the rights allow it.
#pragma once

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <system_error>
#include <unistd.h>
#include <vector>

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
      if (line.starts_with("0::")) place_ = (line == "0::/" ? "" : line.substr(3)) + "/" + name_;
    if (!place_.empty()) path_ = root + place_;
    if (path_.empty() || ::mkdir(path_.c_str(), 0755) != 0) path_.clear();
  }
  service_cgroup(const service_cgroup&) = delete;
  service_cgroup& operator=(const service_cgroup&) = delete;
  /// Whatever is in it must be ending; what is left in the groups below, held still or not, is ended here.
  ~service_cgroup() {
    if (path_.empty()) return;
    std::ofstream(path_ + "/cgroup.freeze") << 0;
    for (const std::string& each : below()) {
      std::ofstream(each + "/cgroup.freeze") << 0;
      std::ofstream(each + "/cgroup.kill") << 1;
    }
    wait_until([&] {
      std::error_code ec;
      for (const auto& each : std::filesystem::directory_iterator(path_, ec))
        if (each.is_directory(ec)) ::rmdir(each.path().c_str());
      return ::rmdir(path_.c_str()) == 0 || errno != EBUSY;
    });
  }

  /// False where there are no such groups, or they are not this user's.
  bool possible() const { return !path_.empty(); }
  bool add(pid_t pid) const { return (std::ofstream(path_ + "/cgroup.procs") << pid).flush().good(); }
  /// Who is in it now.
  std::vector<pid_t> members() const {
    std::vector<pid_t> result;
    std::ifstream list(path_ + "/cgroup.procs");
    for (pid_t pid = 0; list >> pid;) result.push_back(pid);
    return result;
  }
  const std::string& name() const { return name_; }
  const std::string& path() const { return path_; }
  /// As /proc/PID/cgroup tells it.
  const std::string& place() const { return place_; }

  /// Hands it to a user, as a service manager does with Delegate=yes. False: attributes are not possible here.
  bool delegate(uid_t user) const {
    bool owned = true;
    for (const char* file : {"", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"})
      owned = ::chown((path_ + file).c_str(), user, static_cast<gid_t>(user)) == 0 && owned;
    return owned && ::setxattr(path_.c_str(), "user.delegate", "1", 1, 0) == 0;
  }
  /// Moves the caller into it.
  bool enter() const { return add(0); }
  /// Moves the caller out of it, to where the test was.
  bool leave() const {
    const std::string above = path_.substr(0, path_.rfind('/'));
    return (std::ofstream(above + "/cgroup.procs") << 0).flush().good();
  }

  /// The groups that somebody has made below it.
  std::vector<std::string> below() const {
    std::vector<std::string> result;
    std::error_code ec;
    for (const auto& each : std::filesystem::directory_iterator(path_, ec))
      if (each.is_directory(ec)) result.push_back(each.path().string());
    return result;
  }

 private:
  std::string name_;
  std::string place_;
  std::string path_;
};

}  // namespace support
