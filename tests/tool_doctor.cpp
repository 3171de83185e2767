// instance-guard doctor: what it says is tried, and true.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <instance_guard/pid_lockfile.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <sys/mount.h>
#include <vector>

#include "../examples/instance-guard/doctor_anchors.hpp"
#include "support/deny_system_calls.hpp"
#include "support/odd_place.hpp"
#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/sanitizer.hpp"
#include "support/service_cgroup.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;
using json = nlohmann::json;
using namespace std::string_literals;

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
  std::string text(const std::string& name) const {
    for (const json& each : value["checks"])
      if (each["name"] == name) return each["text"];
    return {};
  }
};

/// What GitHub makes of the headings of the page: small letters, digits and hyphens; blanks become hyphens.
std::vector<std::string> anchors_of(const std::string& page) {
  std::vector<std::string> result;
  std::ifstream in(page);
  for (std::string line; std::getline(in, line);) {
    const std::size_t begin = line.find_first_not_of('#');
    if (begin == 0 || begin == std::string::npos) continue;
    std::string anchor;
    for (const char c : line.substr(begin + 1)) {
      const auto letter = static_cast<unsigned char>(c);
      if (c == ' ') anchor += '-';
      else if (std::isalnum(letter) != 0 || c == '-' || c == '_') anchor += static_cast<char>(std::tolower(letter));
    }
    result.push_back(anchor);
  }
  return result;
}

bool holds(const std::vector<std::string>& all, std::string_view one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

/// Nothing is left on /proc.
bool without_proc() {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  while (::umount2("/proc", MNT_DETACH) == 0) continue;
  return ::access("/proc/self", F_OK) != 0;
}

answer ask(const scene& s, std::function<bool()> before_exec = {}) {
  program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "doctor", "--json"}, {.before_exec = std::move(before_exec)});
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
  const std::string place = user == 0 ? "/run/instance_guard" : "/tmp/instance_guard-" + std::to_string(user);
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
  for (const char* each : {"lock", "socket", "ageing", "release", "adopt", "kill -9", "both", "reaper", "/proc"}) {
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

TEST_CASE("for each promise that is not kept, where the documentation tells what that means") {
  const scene s({INSTANCE_GUARD_TOOL});
  const std::vector<std::string> anchors = anchors_of(INSTANCE_GUARD_DOCS "/reliability.md");
  CHECK(holds(anchors, "setuid"));
  for (const tool::doctor_anchor& each : tool::doctor_anchors) {
    CAPTURE(std::string(each.check));
    CHECK(holds(anchors, each.anchor));
  }
  // Each check that can say NO has one.
  const answer got = ask(s);
  for (const json& each : got.value["checks"]) {
    const std::string name = each["name"];
    if (name == "scope" || name == "cgroup" || name == "others") continue;
    CHECK_MESSAGE(tool::where_told(name).find('#') != std::string::npos, name);
  }
  const auto in_words = [&](std::function<bool()> before_exec) {
    program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "doctor"}, {.before_exec = std::move(before_exec)});
    return lines_of(tool.read_all(std::chrono::seconds(120)));
  };
  const auto check_words = [](const std::vector<std::string>& lines) {
    REQUIRE_FALSE(lines.empty());
    std::vector<std::string> names;  // what it called "NO"
    for (const std::string& line : lines)
      if (line.starts_with("  NO    ")) names.push_back(line.substr(8, line.find_last_not_of(' ', 15) - 7));
    CAPTURE(lines.back());
    CHECK(lines.back().ends_with("   exit " + std::string(names.empty() ? "0" : "1")));
    for (const std::string& name : names) {
      const std::string told = name + " (see " + tool::where_told(name) + ")";
      const bool alone = lines.back() == "All promises kept but: " + told + ".   exit 1";
      CHECK_MESSAGE((alone || holds(lines, "  " + told)), name);
      if (name == "setuid" && names.size() == 1) CHECK(alone);
    }
    return names;
  };
  check_words(in_words({}));
  CHECK(holds(check_words(in_words([] { return deny_system_calls({SYS_bind}, EACCES); })), "socket"));
  if (is_root()) CHECK(holds(check_words(in_words([] { return become(nobody); })), "setuid"));
}

TEST_CASE("a process 1 that does not reap is found, and told") {
  const bool is_real_root = is_root();
  for (const bool reaps : {true, false}) {
    CAPTURE(reaps);
    const scene s({INSTANCE_GUARD_TOOL});
    const int code = in_own_pid_namespace(
        [&] {
          program tool = s.start({s.path_of(INSTANCE_GUARD_TOOL), "doctor", "--json"});
          const std::string text = tool.read_all(std::chrono::seconds(120));
          tool.wait();
          answer got;
          got.value = json::parse(text, nullptr, false);
          if (!got.value.is_object()) return 1;
          const std::string why = got.text("init");
          std::fprintf(stderr, "%s: %s\n", got.result("init").c_str(), why.c_str());
          if (got.result("init") != (reaps ? "ok" : "no")) return 2;
          if (!why.starts_with("pid 1 (")) return 3;
          const bool told =
              why.find(") does not reap: the warden of a killed owner stays a zombie") != std::string::npos;
          if (told == reaps) return 4;
          // All else holds there as well. (Who is root of a user namespace alone has no directory for locks.)
          for (const char* each : {"adopt", "lock", "kill -9", "both"})
            if ((is_real_root || each == "adopt"s) && got.result(each) != "ok") return 5;
          return 0;
        },
        reaps);
    if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
    else CHECK(code == 0);
  }
}

TEST_CASE("cgroup.kill is tried where a group can be made, and told to be missing elsewhere") {
  const scene s({INSTANCE_GUARD_TOOL});
  const std::string otherwise = "; the warden ends a tree one by one";
  const service_cgroup probe(unique_name("probe"));
  const bool possible = probe.possible() && ::access((probe.path() + "/cgroup.kill").c_str(), W_OK) == 0;
  const answer here = ask(s);
  if (possible) {
    CHECK(here.result("cgroup") == "ok");
    CHECK(here.text("cgroup") == "cgroup.kill ends a delegated cgroup at once");
    const auto parent = std::filesystem::path(probe.path()).parent_path();
    CHECK_FALSE(std::filesystem::exists(parent / ("doctor-cgroup-" + std::to_string(here.pid))));
  } else {
    CHECK(here.result("cgroup") == "note");
    CHECK(here.text("cgroup").ends_with(otherwise));
  }
  if (!is_root()) {
    MESSAGE("skipped: being several users, and a mount namespace, need root");
    return;
  }
  if (possible) {
    const answer theirs = ask(s, [] { return become(nobody); });
    CHECK(theirs.result("cgroup") == "note");
    CHECK(theirs.text("cgroup") == "none is delegated to this user" + otherwise);
  }
  if (!may_mount()) return;
  const answer without = ask(s, [] {
    if (!own_mounts()) return false;
    return ::umount2("/sys/fs/cgroup", MNT_DETACH) == 0 || errno == EINVAL;
  });
  CHECK(without.result("cgroup") == "note");
  CHECK(without.text("cgroup") == "no cgroups of version 2" + otherwise);
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
    const answer got = ask(s, [] { return deny_system_call_with(SYS_prctl, PR_SET_CHILD_SUBREAPER, EINVAL); });
    CHECK(got.result("reaper") == "no");
    CHECK(got.result("adopt") == "no");
    CHECK(got.result("kill -9") == "no");
    CHECK(got.code == 1);
  }
  SUBCASE("pidfds: the promise is kept otherwise, and that is said") {
    const answer got = ask(s, [] { return deny_system_calls({SYS_pidfd_open, SYS_pidfd_send_signal}, ENOSYS); });
    CHECK(got.result("pidfd") == "part");
    CHECK(got.result("lock") == "ok");
  }
}

TEST_CASE("without /proc names are still held, and it is not said that they are not") {
  if (!is_root() || support::needs_proc) {
    MESSAGE("skipped: taking /proc away needs root, and AddressSanitizer needs /proc");
    return;
  }
  const scene s({INSTANCE_GUARD_TOOL});
  const answer got = ask(s, without_proc);
  CHECK(got.code == 1);
  for (const char* each : {"lock", "socket", "release"}) {
    CAPTURE(each);
    CAPTURE(got.text(each));
    CHECK(got.result(each) == "ok");
  }
  CHECK(got.result("/proc") == "no");
  CHECK(got.text("own") == "no process can be seen");
}
