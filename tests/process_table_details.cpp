// What a table reads of one process beyond its row: never of another one, and nothing twice.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <instance_guard/process_table.hpp>
#include <string>
#include <vector>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using support::forked;
using support::program;
using support::scene;

namespace {

/// Both ways to the details must say the same.
process_details details_of(pid_t pid, const read_options& what = read_options::everything()) {
  std::error_code ec;
  const process_table with = process_table::read(what, ec);
  REQUIRE(!ec);
  const process_info* row = with.find(pid);
  REQUIRE(row != nullptr);
  const process_details* stored = with.stored_details(*row);
  REQUIRE(stored != nullptr);
  const process_details asked = with.details(*row, what, ec);
  CHECK(!ec);
  CHECK(asked.arguments == stored->arguments);
  CHECK(asked.executable.path == stored->executable.path);
  CHECK(asked.cgroup == stored->cgroup);
  CHECK(asked.markers.size() == stored->markers.size());
  return asked;
}

program ready(const scene& s, std::vector<std::string> words, support::start_options options = {}) {
  program result = s.start(s.words(std::move(words)), std::move(options));
  REQUIRE(result.read_until("ready"));
  return result;
}

int rest() {
  ::alarm(60);
  for (;;) ::pause();
}

}  // namespace

TEST_CASE("arguments, executable, directory") {
  const scene s;
  const std::string directory = s / "a directory";
  std::filesystem::create_directory(directory);
  const program one =
      ready(s, {"say=", "say=two words", "sleep"}, {.before_exec = [&] { return ::chdir(directory.c_str()) == 0; }});
  const process_details got = details_of(one.pid());
  CHECK(got.arguments == s.words({"say=", "say=two words", "sleep"}));
  CHECK(!got.arguments_cut);
  CHECK(got.executable.path == s.helper());
  struct stat facts = {};
  REQUIRE(::stat(s.helper().c_str(), &facts) == 0);
  CHECK(got.executable.inode == facts.st_ino);
  CHECK(got.executable.device == facts.st_dev);
  CHECK(!got.executable.deleted);
  CHECK(got.working_directory.path == directory);
  CHECK(!got.working_directory.deleted);
  CHECK(got.pid_namespace == process_identity::self().pid_namespace);
  CHECK(!got.arguments_fault);
  CHECK(!got.executable_fault);
  CHECK(!got.working_directory_fault);
  CHECK(!got.cgroup_fault);
  CHECK(!got.markers_fault);
}

TEST_CASE("what was not asked for is not read") {
  std::error_code ec;
  read_options only;
  only.arguments = true;
  const process_table table = process_table::read(only, ec);
  const process_details* got = table.stored_details(*table.find(::getpid()));
  REQUIRE(got != nullptr);
  CHECK(!got->arguments.empty());
  CHECK(got->executable.path.empty());
  CHECK(got->working_directory.path.empty());
  CHECK(got->cgroup.empty());
  CHECK(got->markers.empty());
}

TEST_CASE("without the ids of files their paths are read all the same") {
  std::error_code ec;
  read_options what = read_options::everything();
  what.file_ids = false;
  const process_table table = process_table::read(what, ec);
  const process_details* got = table.stored_details(*table.find(::getpid()));
  REQUIRE(got != nullptr);
  const process_details all = details_of(::getpid());
  CHECK(got->executable.path == all.executable.path);
  CHECK(got->working_directory.path == all.working_directory.path);
  CHECK(got->executable.inode == 0);
  CHECK(all.executable.inode != 0);
  CHECK(!table.stores(read_options::everything()));
  CHECK(table.stores(what));
  const scene s;
  const std::string path = s / "gone (deleted)";
  std::filesystem::create_directory(path);
  program child = s.start(s.words({"sleep"}), {.before_exec = [&] { return ::chdir(path.c_str()) == 0; }});
  REQUIRE(child.read_until("ready"));
  CHECK(!details_of(child.pid(), what).working_directory.deleted);
  std::filesystem::remove(path);
  const process_details gone = details_of(child.pid(), what);
  CHECK(gone.working_directory.deleted);
  CHECK(gone.working_directory.path == path);
  child.signal(SIGKILL);
  child.wait();
}

TEST_CASE("details of one user's processes only") {
  read_options what = read_options::everything();
  what.details_of = ::geteuid() + 1;
  std::error_code ec;
  const process_table table = process_table::read(what, ec);
  CHECK(table.stored_details(*table.find(::getpid()))->arguments.empty());
  what.details_of = ::geteuid();
  const process_table mine = process_table::read(what, ec);
  CHECK(!mine.stored_details(*mine.find(::getpid()))->arguments.empty());
}

TEST_CASE("an executable and a directory that have been deleted") {
  const scene s;
  const std::string directory = s / "gone";
  const std::string copy = s / "copy of it";
  std::filesystem::create_directory(directory);
  std::filesystem::copy_file(s.helper(), copy);
  program one = s.start({copy, "sleep"}, {.before_exec = [&] { return ::chdir(directory.c_str()) == 0; }});
  REQUIRE(one.read_until("ready"));
  const process_details before = details_of(one.pid());
  std::filesystem::remove(copy);
  std::filesystem::remove(directory);
  const process_details after = details_of(one.pid());
  CHECK(!before.executable.deleted);
  CHECK(after.executable.deleted);
  CHECK(after.executable.path == copy);
  CHECK(after.executable.inode == before.executable.inode);
  CHECK(after.working_directory.deleted);
  CHECK(after.working_directory.path == directory);
}

TEST_CASE("a program whose name ends in \" (deleted)\" is not deleted") {
  const scene s;
  const std::string copy = s / "copy (deleted)";
  std::filesystem::copy_file(s.helper(), copy);
  program one = s.start({copy, "sleep"});
  REQUIRE(one.read_until("ready"));
  CHECK(details_of(one.pid()).executable.path == copy);
  CHECK(!details_of(one.pid()).executable.deleted);
  std::filesystem::remove(copy);
  CHECK(details_of(one.pid()).executable.deleted);
}

TEST_CASE("128 KiB of arguments are read whole, more than asked for is cut") {
  const scene s;
  const std::string long_word = "say=" + std::string(127 * 1024, 'x');
  const program one = ready(s, {long_word, "sleep"});
  CHECK(details_of(one.pid()).arguments == s.words({long_word, "sleep"}));
  read_options what;
  what.arguments = true;
  what.max_arguments = 5000;
  const process_details cut = details_of(one.pid(), what);
  CHECK(cut.arguments_cut);
  std::size_t size = 0;
  for (const std::string& each : cut.arguments) size += each.size();
  CHECK(size <= 5000);
  CHECK(size > 4900);
}

TEST_CASE("arguments are bytes: newlines, escapes, invalid UTF-8") {
  const scene s;
  const std::vector<std::string> words = {"say=\n\r\t", "say=\x1b]0;title\x07", "say=\xff\xc0\x80", "say=\"'`$(id)",
                                          "sleep"};
  const program one = ready(s, words);
  CHECK(details_of(one.pid()).arguments == s.words(words));
}

TEST_CASE("a process that writes a title over its arguments shows it, without the filling") {
  forked child([](const support::teller& to) {
    platform::rename_self("a bot");
    to.say("renamed");
    return rest();
  });
  REQUIRE(child.line());
  CHECK(details_of(child.pid()).arguments == std::vector<std::string>{"a bot"});
  std::error_code ec;
  CHECK(process_table::read(ec).find(child.pid())->name() == "a bot");
}

TEST_CASE("empty arguments stay") {
  CHECK(detail::split_arguments(std::string_view("a\0\0", 3)) == std::vector<std::string>{"a", ""});
  CHECK(detail::split_arguments(std::string_view("a\0\0b\0\0", 6)) == std::vector<std::string>{"a", "", "b", ""});
  CHECK(detail::split_arguments(std::string_view("a\0\0\0\0", 5)) == std::vector<std::string>{"a"});
  CHECK(detail::split_arguments("title") == std::vector<std::string>{"title"});
  CHECK(detail::split_arguments("").empty());
  CHECK(detail::split_arguments(std::string_view("\0", 1)) == std::vector<std::string>{""});
}

TEST_CASE("of the environment only the markers are kept") {
  const scene s;
  read_options what = read_options::everything();
  what.variables = {"MORE"};
  const program one = ready(s, {"sleep"},
                            {.environment = {"CLAUDECODE=1", "SECRET=x", "INSTANCE_GUARD_SESSION=7f3a", "MORE=a=b",
                                             "XCLAUDECODE=1", "CODEX_SANDBOX_NETWORK_DISABLED=1", "TMUX="}});
  const process_details got = details_of(one.pid(), what);
  REQUIRE(got.marker("CLAUDECODE") != nullptr);
  CHECK(*got.marker("CLAUDECODE") == "1");
  CHECK(*got.marker("INSTANCE_GUARD_SESSION") == "7f3a");
  CHECK(*got.marker("MORE") == "a=b");
  CHECK(got.marker("CODEX_SANDBOX_NETWORK_DISABLED") != nullptr);
  CHECK(got.marker("TMUX")->empty());
  CHECK(got.marker("SECRET") == nullptr);
  CHECK(got.marker("XCLAUDECODE") == nullptr);
  CHECK(got.marker("PATH") == nullptr);
}

TEST_CASE("an empty environment is known to be empty") {
  const scene s;
  program one = s.start(s.words({"cleared", "sleep"}));
  REQUIRE(one.read_until("ready"));
  const process_details got = details_of(one.pid());
  CHECK(got.markers.empty());
  CHECK(!got.markers_fault);
}

TEST_CASE("a process whose main thread has ended is read through another thread") {
  const scene s;
  program headless = s.start(s.words({"headless", "sleep"}), {.environment = {"CLAUDECODE=1"}});
  REQUIRE(headless.read_until("ready"));
  CHECK(support::wait_until([&] {
    std::error_code ec;
    const process_table table = process_table::read(ec);
    const process_info* row = table.find(headless.pid());
    return row != nullptr && row->state == process_state::zombie && row->threads > 1;
  }));
  const process_details got = details_of(headless.pid());
  CHECK(got.arguments == s.words({"headless", "sleep"}));
  CHECK(got.executable.path == s.helper());
  CHECK(got.marker("CLAUDECODE") != nullptr);
}

TEST_CASE("a zombie has no details, and that is no fault") {
  forked zombie([](const support::teller&) { return 0; });
  siginfo_t info;
  ::waitid(P_PID, static_cast<id_t>(zombie.pid()), &info, WEXITED | WNOWAIT);
  const process_details got = details_of(zombie.pid());
  CHECK(got.arguments.empty());
  CHECK(got.executable.path.empty());
  CHECK(!got.arguments_fault);
  CHECK(!got.executable_fault);
  CHECK(!got.markers_fault);
}

TEST_CASE("a process that has ended since is no such process") {
  forked child([](const support::teller&) { return rest(); });
  std::error_code ec;
  const process_table table = process_table::read(ec);
  const process_info row = *table.find(child.pid());
  child.signal(SIGKILL);
  child.wait();
  table.details(row, read_options::everything(), ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("an ordinary user is told what can't be read of others") {
  if (!support::is_root()) {
    MESSAGE("skipped: needs root to become somebody else");
    return;
  }
  const scene s;
  const program roots = ready(s, {"sleep"});
  forked user([&](const support::teller& to) {
    if (!support::become(support::nobody)) return 77;
    std::error_code ec;
    const process_table table = process_table::read(read_options::everything(), ec);
    const process_info* row = table.find(roots.pid());
    if (ec || row == nullptr || row->user != 0) return 1;
    const process_details* got = table.stored_details(*row);
    // The command line of everybody can be read, the rest not.
    if (got->arguments != s.words({"sleep"})) return 2;
    if (got->executable_fault != std::errc::permission_denied) return 3;
    if (got->working_directory_fault != std::errc::permission_denied) return 4;
    if (got->markers_fault != std::errc::permission_denied) return 5;
    to.say("ok");
    return 0;
  });
  CHECK(user.wait().code() == 0);
}

TEST_CASE("containers are told by their control group") {
  const std::string digest(64, 'a');
  const auto id = [](const std::string& text) { return detail::container_of_cgroups(text); };
  CHECK(id("0::/system.slice/docker-" + digest + ".scope\n") == digest);
  CHECK(id("12:pids:/docker/" + digest + "\n0::/\n") == digest);
  CHECK(id("0::/kubepods/burstable/pod1/" + digest + "\n") == digest);
  CHECK(id("0::/machine.slice/libpod-" + digest + ".scope/container\n") == digest);
  CHECK(id("0::/kubepods.slice/x.slice/cri-containerd-" + digest + ".scope\n") == digest);
  CHECK(id("0::/lxc/web/init.scope\n") == "web");
  CHECK(id("0::/lxc.payload.web\n") == "web");
  CHECK(id("0::/machine.slice/systemd-nspawn@web.service\n") == "web");
  CHECK(id("0::/system.slice/docker.service\n").empty());
  CHECK(id("0::/user.slice/user-1000.slice/session-3.scope\n").empty());
  CHECK(id("0::/system.slice/lxc.service\n").empty());
  CHECK(id("0::/").empty());
  CHECK(id("").empty());
  CHECK(id("garbage\n:::\n").empty());
}
