// When the last ghost was seen: what audit --discord keeps, where, and what it does not believe.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <instance_guard/file_descriptor.hpp>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../examples/instance-guard/last_ghost.hpp"
#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/scene.hpp"
#include "support/tool_result.hpp"

using namespace support;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const tool::wall_time now{std::chrono::seconds(1'774'778'400)};

/// A directory that only its owner can write to, as the tool makes one.
struct place {
  temporary_directory directory;
  std::string file = directory / "last-ghost";
  std::string path() const { return directory.path().string(); }
  void put(const std::string& text) const {
    std::ofstream(file, std::ios::binary) << text;
    ::chmod(file.c_str(), 0600);  // whatever the umask
  }
  bool known() const { return tool::read_last_ghost(path(), now).has_value(); }
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t entries(const std::string& directory) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory), {}));
}

/// The place that this environment names.
std::string place_with(const char* state, const std::string& data, const std::string& user) {
  ::setenv("STATE_DIRECTORY", state, 1);
  ::setenv("XDG_STATE_HOME", data.c_str(), 1);
  const char* old = std::getenv("HOME");
  const std::string before = old != nullptr ? old : "";
  ::setenv("HOME", user.c_str(), 1);
  std::string result = tool::state_directory();
  if (old != nullptr) ::setenv("HOME", before.c_str(), 1);
  else ::unsetenv("HOME");
  ::unsetenv("STATE_DIRECTORY");
  ::unsetenv("XDG_STATE_HOME");
  return result;
}

mode_t mode_of(const std::string& path) {
  struct stat facts = {};
  return ::lstat(path.c_str(), &facts) == 0 ? facts.st_mode & 07777 : 0;
}

/// What `audit --discord` says, with its state below `state`.
tool_result report(const scene& s, const std::string& state, std::vector<std::string> more) {
  more.insert(more.begin(), {"audit", "--discord", "--min-age", "0"});
  return run_tool(s, std::move(more), {.environment = {"STATE_DIRECTORY=" + state}, .merge_err = true});
}

}  // namespace

TEST_CASE("what was kept is read back, and nothing else is left beside it") {
  const place here;
  CHECK(!here.known());
  CHECK(tool::write_last_ghost(here.path(), now - 3 * 24h).empty());
  CHECK(tool::read_last_ghost(here.path(), now) == now - 3 * 24h);
  CHECK(tool::write_last_ghost(here.path(), now).empty());
  CHECK(tool::read_last_ghost(here.path(), now) == now);
  CHECK(text_of(here.file) == "1774778400\n");
  CHECK(entries(here.path()) == 1);
  struct stat facts = {};
  REQUIRE(::stat(here.file.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 07777) == 0600);
}

TEST_CASE("a content that is no time, or one to come, counts as nothing") {
  const place here;
  here.put("1774778400\n");
  REQUIRE(here.known());
  const std::vector<std::string> texts = {"",
                                          "\n",
                                          "0\n",
                                          "1774778401\n",
                                          "1774778400",
                                          "-5\n",
                                          " 5\n",
                                          "5 \n",
                                          "5\n5\n",
                                          "0x5\n",
                                          "99999999999999999999\n",
                                          std::string("5\0\n", 3),
                                          "\x1b[2J\n",
                                          std::string(1 << 20, '1') + "\n"};
  for (const std::string& text : texts) {
    CAPTURE(text.substr(0, 20));
    here.put(text);
    CHECK(!here.known());
  }
}

TEST_CASE("a link, a fifo or a directory in its place is not read, and is replaced or left alone") {
  const place here;
  const temporary_directory elsewhere;
  const std::string target = elsewhere / "target";
  std::ofstream(target) << "1774778400\n";
  REQUIRE(::symlink(target.c_str(), here.file.c_str()) == 0);
  CHECK(!here.known());
  CHECK(tool::write_last_ghost(here.path(), now - 1h).empty());
  CHECK(text_of(target) == "1774778400\n");
  CHECK(!fs::is_symlink(here.file));
  fs::remove(here.file);
  REQUIRE(::mkfifo(here.file.c_str(), 0600) == 0);
  CHECK(!here.known());
  fs::remove(here.file);
  fs::create_directory(here.file);
  CHECK(!here.known());
  CHECK(!tool::write_last_ghost(here.path(), now).empty());
  CHECK(entries(here.path()) == 1);
  fs::remove(here.file);
  // What somebody has put where the temporary file goes.
  REQUIRE(::symlink(target.c_str(), (here.directory / (".last-ghost." + std::to_string(::getpid()))).c_str()) == 0);
  CHECK(tool::write_last_ghost(here.path(), now).empty());
  CHECK(text_of(target) == "1774778400\n");
  CHECK(entries(here.path()) == 1);
}

TEST_CASE("a directory that others can write to, or that is somebody else's, is not used") {
  const place here;
  here.put("1774778400\n");
  REQUIRE(::chmod(here.path().c_str(), 0777) == 0);
  CHECK(!here.known());
  CHECK(tool::write_last_ghost(here.path(), now).find("others can write") != std::string::npos);
  REQUIRE(::chmod(here.path().c_str(), 0700) == 0);
  REQUIRE(here.known());
  REQUIRE(::chmod(here.file.c_str(), 0666) == 0);
  CHECK(!here.known());
  if (!is_root()) return;
  REQUIRE(::chmod(here.file.c_str(), 0600) == 0);
  REQUIRE(::chown(here.file.c_str(), nobody, nobody) == 0);
  CHECK(!here.known());
  REQUIRE(::chown(here.path().c_str(), nobody, nobody) == 0);
  CHECK(!tool::write_last_ghost(here.path(), now).empty());
  CHECK(text_of(here.file) == "1774778400\n");
  REQUIRE(::chown(here.path().c_str(), 0, 0) == 0);
}

TEST_CASE("the place: a service manager's, else the user's own, made when it is needed") {
  const temporary_directory home;
  const std::string user = home.path().string();
  CHECK(place_with("/var/lib/a:/var/lib/b", "/x", user) == "/var/lib/a");
  CHECK(place_with("", "/x", user) == "/x/instance-guard");
  CHECK(place_with("relative", "relative", user) == user + "/.local/state/instance-guard");
  CHECK(place_with("", "", home / "none").empty());
  CHECK(place_with("", "", "").empty());
  CHECK(!tool::write_last_ghost("", now).empty());
  CHECK(!tool::read_last_ghost("", now));
  const std::string place = user + "/.local/state/instance-guard";
  CHECK(!tool::read_last_ghost(place, now));
  CHECK(entries(user) == 0);
  CHECK(tool::write_last_ghost(place, now).empty());
  CHECK(tool::read_last_ghost(place, now) == now);
}

TEST_CASE("whatever the umask, nobody else can write to what is made") {
  for (const mode_t mask : {mode_t{0}, mode_t{002}, mode_t{022}, mode_t{077}}) {
    CAPTURE(mask);
    const temporary_directory home;
    const std::string state = home / "state", place = state + "/instance-guard";
    const mode_t before = ::umask(mask);
    const std::string fault = tool::write_last_ghost(place, now);
    ::umask(before);
    CHECK(fault == "");
    CHECK(tool::read_last_ghost(place, now) == now);
    CHECK(mode_of(state) == 0700);
    CHECK(mode_of(place) == 0700);
    CHECK(mode_of(place + "/last-ghost") == 0600);
  }
}

TEST_CASE("nothing is made through a link, or where everybody can put something") {
  const temporary_directory home, elsewhere;
  REQUIRE(::symlink(elsewhere.path().c_str(), (home / "link").c_str()) == 0);
  for (const char* each : {"link/instance-guard", "link//instance-guard", "link/a/b"}) {
    CAPTURE(each);
    CHECK(tool::write_last_ghost(home / each, now).find("no place for it") == 0);
  }
  CHECK(entries(elsewhere.path().string()) == 0);
  REQUIRE(::chmod(home.path().c_str(), 0777) == 0);
  CHECK(tool::write_last_ghost(home / "state/instance-guard", now).find("no place for it") == 0);
  CHECK(entries(home.path().string()) == 1);
  REQUIRE(::chmod(home.path().c_str(), 0700) == 0);
  CHECK(tool::write_last_ghost(home / "state//instance-guard/", now).empty());
}

TEST_CASE("as root with somebody else's home nothing is made there, nor where a link of theirs leads") {
  if (!is_root()) {
    MESSAGE("skipped: needs root, to have a directory of somebody else");
    return;
  }
  const temporary_directory home, own;
  const std::string user = home.path().string(), root = own.path().string();
  REQUIRE(::chown(user.c_str(), nobody, nobody) == 0);
  CHECK(place_with("", "", user).empty());
  CHECK(place_with("", user, root).empty());
  CHECK(place_with("", user + "/state", root).empty());
  CHECK(tool::write_last_ghost(user + "/.local/state/instance-guard", now).find("no place for it") == 0);
  CHECK(entries(user) == 0);
  const std::string link = home / "link";
  REQUIRE(::symlink(root.c_str(), link.c_str()) == 0);
  REQUIRE(::lchown(link.c_str(), nobody, nobody) == 0);
  fs::create_directory(own / "deep");
  // Root's own link to it.
  fs::create_directory_symlink(user, own / "deep/home");
  CHECK(place_with("", "", own / "deep/home").empty());
  CHECK(place_with("", "", link).empty());
  CHECK(place_with("", link, root).empty());
  CHECK(place_with("", link + "/deep", root).empty());
  CHECK(tool::write_last_ghost(link + "/instance-guard", now).find("no place for it") == 0);
  CHECK(entries(root) == 1);
  CHECK(place_with("", "", root) == root + "/.local/state/instance-guard");
  REQUIRE(::chown(user.c_str(), 0, 0) == 0);
}

TEST_CASE("a clean message tells of the ghost before; a ghost is kept, and a fault of that is a warning") {
  const scene s;
  const int code = in_own_pid_namespace([&] {
    const temporary_directory state;
    const std::string path = state.path().string();
    const auto fail = [](int number, const tool_result& got) {
      std::fprintf(stderr, "part %d: exit %d\n%s\n", number, got.code, got.out.c_str());
      return number;
    };
    const tool_result first = report(s, path, {});
    if (first.code != 0 || !first.says(" held, no ghost on record")) return fail(1, first);
    if (entries(path) != 0) return fail(2, first);
    program parent = s.start(s.words({"daemon", "sleep"}), {.environment = {"INSTANCE_GUARD_SESSION=gone"}});
    parent.read_until("ready pid=");
    parent.wait();
    // Another output, or what is left out, keeps nothing.
    run_tool(s, {"audit", "--min-age", "0", "--json"}, {.environment = {"STATE_DIRECTORY=" + path}});
    const tool_result ignored = report(s, path, {"--ignore", "."});
    if (ignored.code != 0 || entries(path) != 0) return fail(3, ignored);
    const tool_result lost = report(s, "/dev/null/none", {});
    if (lost.code != 1 || !lost.says("warning: the time of this ghost is not kept: /dev/null/none"))
      return fail(4, lost);
    if (!nlohmann::json::accept(lines_of(lost.out).back())) return fail(5, lost);
    const tool_result ghost = report(s, path, {"--only-ghosts"});
    if (ghost.code != 1 || ghost.says("not kept") || entries(path) != 1) return fail(6, ghost);
    const tool_result clean = report(s, path, {"--ignore", "."});
    if (clean.code != 0 || !clean.says(" held, last ghost ") || !clean.says(" ago")) return fail(7, clean);
    std::ofstream(state / "last-ghost") << "\x1b[2J";
    const tool_result spoilt = report(s, path, {"--ignore", "."});
    return spoilt.code == 0 && spoilt.says("no ghost on record") ? 0 : fail(8, spoilt);
  });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
  else CHECK(code == 0);
}
