// instance-guard list: every name that is not free.
#include <doctest/doctest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <filesystem>
#include <instance_guard/pid_lockfile.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/owner.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;
using json = nlohmann::json;

namespace {

program hold(const scene& s, const std::string& directory, const std::string& name,
             std::vector<std::string> more = {}) {
  std::vector<std::string> words = {INSTANCE_GUARD_LOCK_HELPER, name, "directory=" + directory};
  words.insert(words.end(), more.begin(), more.end());
  program holder = s.start(words);
  REQUIRE(holder.read_until("taken"));
  return holder;
}

/// The line that begins with a name; one that is long has two.
std::string line_of(const std::string& text, const std::string& name) {
  const std::vector<std::string> lines = lines_of(text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i] == name && i + 1 < lines.size()) return lines[i + 1];
    if (lines[i].starts_with(name + " ")) return lines[i];
  }
  return {};
}

}  // namespace

TEST_CASE("held names come first, each with pid, age, origin and version; all columns aligned") {
  const scene s;
  const std::string a = unique_name("l-a"), b = unique_name("l-b"), c = unique_name("l-c");
  const std::string place = s / "locks";
  std::filesystem::create_directory(place);
  program first = hold(s, place, b, {"version=9f31c02"});
  program second = hold(s, place, c);
  program gone = hold(s, place, a);
  gone.signal(SIGKILL);
  REQUIRE(gone.wait());
  tool_result got = run_tool(s, {"list", "--directory", place});
  CAPTURE(got.out);
  CHECK(got.code == 0);
  CHECK(fits(got.out));
  // One byte for each column.
  for (std::size_t at = 0; (at = got.out.find("…", at)) != std::string::npos;)
    got.out.replace(at, std::string("…").size(), "~");
  const std::vector<std::string> lines = lines_of(got.out);
  const std::size_t state = lines[0].find("STATE"), pid = lines[0].find("PID");
  const std::size_t version = lines[0].find("VERSION");
  REQUIRE(version != std::string::npos);
  CHECK(lines[0].starts_with("NAME "));
  // Names of others may be between.
  const std::string held = line_of(got.out, b), bare = line_of(got.out, c);
  REQUIRE(held.size() > version);
  REQUIRE(bare.size() > version);
  CHECK(held.substr(state).starts_with("held "));
  CHECK(held.substr(pid).starts_with(std::to_string(first.pid()) + " "));
  CHECK(held.substr(version) == "9f31c02");
  CHECK(bare.substr(version) == "-");
  CHECK(bare.substr(pid).starts_with(std::to_string(second.pid()) + " "));
  CHECK(got.out.find("\n" + b) < got.out.find("\n" + c));
  CHECK(got.out.find("\n" + c) < got.out.find("\n" + a));
  const std::string left = line_of(got.out, a);
  REQUIRE(left.size() > version);
  CHECK(left.substr(state).starts_with("abandoned "));
  CHECK(left.substr(pid).starts_with("- "));
  CHECK(left.find("pid " + std::to_string(gone.pid()) + " died") != std::string::npos);
}

TEST_CASE("a process with several names is told once, and replaced code is marked") {
  const scene s;
  const std::string bot = unique_name("l-bot"), wallet = unique_name("l-wallet");
  program holder = s.start(run_words({"--name", bot, "--name", wallet}, s.words({"sleep"})));
  REQUIRE(holder.read_until("ready"));
  std::filesystem::copy_file(s.helper(), s.helper() + ".new");
  std::filesystem::rename(s.helper() + ".new", s.helper());
  const tool_result got = run_tool(s, {"list"});
  CAPTURE(got.out);
  CHECK(line_of(got.out, bot).find("(" + wallet + ")") == std::string::npos);
  CHECK(line_of(got.out, wallet).find("(" + bot + ")") != std::string::npos);
  CHECK(line_of(got.out, bot).ends_with(" !"));
  CHECK(got.says("! runs code that has been replaced"));
  holder.signal(SIGTERM);
  CHECK(holder.wait());
}

TEST_CASE("a killed holder's name is cleaning up, with the number of children and since when") {
  const scene s({INSTANCE_GUARD_TEST_OWNER});
  const std::string name = unique_name("l-cleaning");
  owner o(s, {.arguments = {"grace=60000", "guard=" + name, "child=ignore sleep", "pause"}, .ready = 1});
  REQUIRE(o.complete());
  // The file's date is not that of the death by chance: it is old before.
  const std::filesystem::path file = instance_guard::query_lock(name).path;
  std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() - std::chrono::hours(100));
  o.process().signal(SIGKILL);
  REQUIRE(o.process().wait());
  CHECK(wait_until([&] {
    const auto changed = std::filesystem::last_write_time(file);
    return std::filesystem::file_time_type::clock::now() - changed < std::chrono::hours(1);
  }));
  const std::string line = line_of(run_tool(s, {"list"}).out, name);
  CAPTURE(line);
  CHECK(line.find("cleaning up  -") != std::string::npos);
  CHECK(line.find("1 child left") != std::string::npos);
  s.end();
  CHECK(wait_until([&] { return instance_guard::query_lock(name).state == instance_guard::lock_state::abandoned; }));
  const std::string after = line_of(run_tool(s, {"list"}).out, name);
  CAPTURE(after);
  CHECK(after.find("pid " + std::to_string(o.process().pid()) + " died") != std::string::npos);
  const json listed = json::parse(run_tool(s, {"list", "--json"}).out);
  for (const json& each : listed["names"])
    if (each["name"] == name) CHECK(each["ended_at"].is_string());
}

TEST_CASE("a name is never cut: it can be pasted") {
  const scene s;
  std::string name = unique_name("l-long");
  name += std::string(64 - name.size(), 'x');
  const std::string place = s / "locks";
  std::filesystem::create_directory(place);
  program holder = hold(s, place, name);
  const tool_result got = run_tool(s, {"list", "--directory", place});
  CAPTURE(got.out);
  CHECK(fits(got.out));
  CHECK(got.says(name + "\n"));
  CHECK(got.says(std::to_string(holder.pid())));
}

TEST_CASE("as JSON: every name, with the fields of status") {
  const scene s;
  const std::string a = unique_name("l-json"), b = unique_name("l-json");
  const std::string place = s / "locks";
  std::filesystem::create_directory(place);
  tool_result got = run_tool(s, {"list", "--json", "--directory", place, "--scope", "user"});
  CHECK(got.code == 0);
  CHECK(json::parse(got.out)["schema"] == 1);
  program one = hold(s, place, a), two = hold(s, place, b);
  got = run_tool(s, {"list", "--json", "--directory", place});
  const json value = json::parse(got.out, nullptr, false);
  REQUIRE(value.is_object());
  int found = 0;
  for (const json& each : value["names"]) {
    if (each["name"] != a && each["name"] != b) continue;
    ++found;
    CHECK(each["state"] == "held");
    CHECK(each["scope"] == "user");
    CHECK(each["holder"]["pid"] == (each["name"] == a ? one.pid() : two.pid()));
    CHECK(each["children"].is_array());
  }
  CHECK(found == 2);
}

TEST_CASE("what can't be written is a fault, not silence") {
  const scene s;
  const tool_result got = run_tool(s, {"list"}, {.before_exec = [] {
                                     const int full = ::open("/dev/full", O_WRONLY);
                                     return full >= 0 && ::dup2(full, 1) == 1;
                                   }});
  CHECK(got.code == 125);
}
