// instance-guard doctor: what it says is tried, and true.
#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <instance_guard/pid_lockfile.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "support/deny_system_calls.hpp"
#include "support/other_user.hpp"
#include "support/tool_result.hpp"

using namespace support;
using json = nlohmann::json;

namespace {

struct answer {
  int code = -1;
  pid_t pid = 0;
  json value = {};
  std::string result(const std::string& name) const {
    for (const json& each : value["checks"])
      if (each["name"] == name) return each["result"];
    return "missing";
  }
};

answer ask(const scene& s, std::function<bool()> before_exec = {}) {
  program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "doctor", "--json"},
                         {.before_exec = std::move(before_exec)});
  const std::string text = tool.read_all(std::chrono::seconds(120));
  CAPTURE(text);
  answer result;
  result.pid = tool.pid();
  result.code = tool.wait(std::chrono::seconds(120)).value_or(no_status).code();
  result.value = json::parse(text, nullptr, false);
  REQUIRE(result.value.is_object());
  CHECK(result.value["schema"] == 1);
  // The exit code and the list say the same as the checks.
  bool kept = true;
  for (const json& each : result.value["checks"]) kept = kept && each["result"] != "no";
  CHECK(result.value["kept"] == kept);
  CHECK(result.value["not_kept"].empty() == kept);
  CHECK(result.code == (kept ? 0 : 1));
  return result;
}

/// What the doctor took is free again, and no file of his is left.
void check_nothing_left(const scene& s, const answer& got, uid_t user) {
  CHECK(wait_until([&] { return s.empty(); }));
  const std::string place =
      user == 0 ? "/run/instance_guard" : "/tmp/instance_guard-" + std::to_string(user);
  std::error_code ec;
  for (const auto& each : std::filesystem::directory_iterator(place, ec)) {
    const std::string name = each.path().filename().string();
    CHECK_MESSAGE(!name.ends_with("-" + std::to_string(got.pid) + ".lock"), name);
  }
}

}  // namespace

TEST_CASE("every promise is tried, and what works here is found to work") {
  const scene s({INSTANCE_GUARD_TOOL});
  const answer got = ask(s);
  for (const char* each :
       {"lock", "socket", "ageing", "release", "adopt", "kill -9", "both", "reaper", "/proc"}) {
    CAPTURE(each);
    CHECK(got.result(each) == "ok");
  }
  CHECK(got.result("pidfd") != "no");
  CHECK(got.result("cgroup") != "no");
  CHECK(got.result("scope") == "note");
  CHECK(got.result("init") != "missing");
  if (!is_root()) CHECK(got.result("setuid") == "no");
  check_nothing_left(s, got, ::geteuid());
}

TEST_CASE("for an ordinary user too; setuid can't be promised then") {
  if (!is_root()) return;
  const scene s({INSTANCE_GUARD_TOOL});
  const answer got = ask(s, [] { return become(nobody); });
  CHECK(got.code == 1);
  CHECK(got.value["not_kept"][0] == "setuid");
  for (const char* each : {"lock", "socket", "adopt", "kill -9", "both"}) {
    CAPTURE(each);
    CHECK(got.result(each) == "ok");
  }
  check_nothing_left(s, got, nobody);
}

TEST_CASE("in words: one line each, or two, within 80 columns") {
  const scene s({INSTANCE_GUARD_TOOL});
  program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "doctor"});
  const std::string text = tool.read_all(std::chrono::seconds(120));
  CAPTURE(text);
  const int code = tool.wait().value_or(no_status).code();
  CHECK(fits(text));
  CHECK(text.starts_with("One holder per name\n  ok    lock     flock on /"));
  CHECK(text.find("\nChildren end with their owner\n") != std::string::npos);
  CHECK(text.find("\nSeeing others\n") != std::string::npos);
  CHECK(text.find("exit " + std::to_string(code)) != std::string::npos);
}

TEST_CASE("what the system refuses is not kept, and told") {
  const scene s({INSTANCE_GUARD_TOOL});
  SUBCASE("file locks") {
    const answer got = ask(s, [] { return deny_system_calls({SYS_flock}, ENOLCK); });
    check_nothing_left(s, got, ::geteuid());
    CHECK(got.result("lock") == "no");
    CHECK(got.code == 1);
  }
  SUBCASE("the second lock") {
    const answer got = ask(s, [] { return deny_system_calls({SYS_bind}, EACCES); });
    CHECK(got.result("socket") == "no");
    CHECK(got.code == 1);
  }
  SUBCASE("adoption") {
    const answer got =
        ask(s, [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EINVAL); });
    CHECK(got.result("reaper") == "no");
    CHECK(got.result("adopt") == "no");
    CHECK(got.result("kill -9") == "no");
    CHECK(got.code == 1);
  }
  SUBCASE("pidfds: the promise is kept otherwise, and that is said") {
    const answer got = ask(s, [] {
      return deny_system_calls({SYS_pidfd_open, SYS_pidfd_send_signal}, ENOSYS);
    });
    CHECK(got.result("pidfd") == "part");
    CHECK(got.result("lock") == "ok");
  }
}
