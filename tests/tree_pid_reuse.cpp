// A pid that is somebody else's by now: with some hundred pids in all, each is reused within
// some 50 ms, while processes of a group come and go as fast as they can, and the warden is
// stopped again and again between a look and a blow. Who shares the pids without belonging to
// the group must never be hit.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <vector>

#include "support/other_user.hpp"
#include "support/owner.hpp"
#include "support/rounds.hpp"
#include "support/scene.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

/// From Linux 6.14 on each pid namespace has a pid_max of its own; before, it is the machine's.
bool pid_max_is_per_namespace() {
  utsname system{};
  int major = 0, minor = 0;
  return ::uname(&system) == 0 && std::sscanf(system.release, "%d.%d", &major, &minor) == 2 &&
         (major > 6 || (major == 6 && minor >= 14));
}

/// Runs owners, one after the other, beside bystanders in a namespace of few pids.
void beside_bystanders(const std::string& owner_arguments) {
  if (!is_root() || !pid_max_is_per_namespace()) return;
  scene s({INSTANCE_GUARD_TEST_OWNER});
  REQUIRE(::mkdir((s / "locks").c_str(), 0700) == 0);
  const std::string script = R"(
    echo 900 > /proc/sys/kernel/pid_max || exit 77
    "$1" bystander & first=$!
    "$1" bystander & second=$!
    "$1" runner=2 &
    "$1" harass=instance-warden &
    i=0
    while [ $i -lt "$3" ]; do
      i=$((i + 1))
      "$2" helper="$1" directory="$4" )" +
                             owner_arguments +
                             R"( > /dev/null
    done
    kill -USR1 $first $second
    wait $first && wait $second)";
  // Pids run out now and then: bash tries again, other shells give up.
  const std::string shell = ::access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "sh";
  std::string said;
  std::optional<instance_guard::exit_status> status;
  // It gives up as well where a child of its own ends while it waits to try again: that is no verdict on anybody.
  for (int tries = 0; tries < 4; ++tries) {
    program p = s.start({"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", shell, "-c", script, "sh",
                         s.helper(), s.path_of(INSTANCE_GUARD_TEST_OWNER), std::to_string(rounds(10, 3)), s / "locks"},
                        {.merge_err = true});
    said = p.read_all(std::chrono::seconds(120));
    status = p.wait();
    CHECK(said.find("hurt: child") == said.npos);
    if (said.find("fork: Interrupted system call") == said.npos) break;
  }
  CAPTURE(said);
  REQUIRE(status);
  // root of a container may not be allowed to do either.
  if (status->code() == 77 || said.starts_with("unshare: ")) return;
  CHECK(status->success());
  CHECK(said.find("unhurt") != said.npos);
}

}  // namespace

TEST_CASE("a group that ends in order hits no reused pid") {
  beside_bystanders(
      "grace=300 group= child='ignore bystander' child=runner=1 "
      "child='daemon ignore bystander' delay=100 end=return");
}

TEST_CASE("a group whose owner is killed hits no reused pid") {
  // Each waits for the last one's children: their number stays bounded.
  beside_bystanders("grace=300 wait=20000 reach=spawned guard=" + unique_name("reuse") +
                    " child='ignore bystander' child='subreaper daemon bystander' "
                    "child=runner=1 delay=100 end=kill");
}

TEST_CASE("strays of a guard that is killed are found without hitting a reused pid") {
  beside_bystanders("grace=300 wait=20000 guard=" + unique_name("reuse") +
                    " stray.spawn='ignore bystander' stray.spawn='daemon bystander' "
                    "stray.system='setsid ignore runner=1' delay=100 end=kill");
}
