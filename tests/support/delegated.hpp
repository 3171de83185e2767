// A control group as a service manager hands it to a user, where the system lets the test make one.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <instance_guard/platform/platform.hpp>
#include <string>

#include "service_cgroup.hpp"
#include "wait_until.hpp"

namespace support {

/// A group as a service manager would hand it to the test's user, or to nobody.
struct delegated {
  service_cgroup group;
  bool works;

  explicit delegated(const std::string& name, uid_t user = ::geteuid())
      : group("ig-" + name),
        works(group.possible() && group.delegate(user) &&
              ::access((group.path() + "/cgroup.kill").c_str(), F_OK) == 0 &&
              instance_guard::platform::can_share_with_children()) {
    if (!works) MESSAGE("skipped: no control group of version 2 may be made here, or not with attributes");
  }
  /// The groups of wardens go with them.
  bool nothing_below() const {
    return wait_until([&] { return group.below().empty(); });
  }
};

}  // namespace support
