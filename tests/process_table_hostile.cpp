// A /proc that is not as it should be: nothing hangs, nothing is believed that can't be.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <instance_guard/ghost_census.hpp>
#include <instance_guard/process_table.hpp>
#include <string>

#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/temporary_directory.hpp"

using namespace instance_guard;
using support::forked;
using support::temporary_directory;

namespace {

/// A directory that looks like /proc.
struct made_up {
  temporary_directory root;

  std::string add(int pid, const std::string& name = "bot", char state = 'S') const {
    const std::string directory = root / std::to_string(pid);
    std::filesystem::create_directory(directory);
    std::ofstream(directory + "/stat") << pid << " (" << name << ") " << state
                                       << " 1 2 3 0 -1 4194560 0 0 0 0 7 8 0 0 20 0 1 0 500 1000 "
                                          "25 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
                                          " 0 0 0 0 0 0 0 9 9 9 9 0\n";
    std::ofstream(directory + "/cmdline") << "bot" << '\0';
    std::ofstream(directory + "/environ") << "CLAUDECODE=1" << '\0';
    std::ofstream(directory + "/cgroup") << "0::/\n";
    return directory;
  }
  read_options what() const {
    read_options result = read_options::everything();
    result.proc = root.path().string();
    return result;
  }
  process_table read() const {
    std::error_code ec;
    process_table table = process_table::read(what(), ec);
    CHECK(!ec);
    return table;
  }
};

void put_fifo(const std::string& path) {
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
}

/// A mount namespace of its own with a fresh /proc, if the rights allow it.
bool with_own_proc(const char* options) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("proc", "/proc", "proc", 0, options) == 0;
}

}  // namespace

TEST_CASE("another /proc is read, and nobody can be signalled by its rows") {
  const made_up proc;
  proc.add(77);
  const process_table table = proc.read();
  REQUIRE(table.size() == 1);
  CHECK(table[0].name() == "bot");
  CHECK(table[0].cpu_time == std::chrono::milliseconds(150));
  CHECK(table.stored_details(table[0])->arguments == std::vector<std::string>{"bot"});
  std::error_code ec;
  CHECK(table.details(table[0], proc.what(), ec).marker("CLAUDECODE") != nullptr);
  CHECK(!ec);
  CHECK(!process_handle::open(table[0].id, ec));
  CHECK(ec == std::errc::not_supported);
}

TEST_CASE("entries that would block a reader do not: fifos in the place of files") {
  const made_up proc;
  proc.add(77);
  for (const char* leaf : {"cmdline", "environ", "cgroup"}) put_fifo(proc.root / ("77/" + std::string(leaf)));
  proc.add(78);
  put_fifo(proc.root / "78/stat");
  proc.add(79);
  // A writer that never writes.
  const int held = ::open((proc.root / "77/cmdline").c_str(), O_RDWR);
  const process_table table = proc.read();
  CHECK(table.size() == 2);
  REQUIRE(table.find(77) != nullptr);
  CHECK(table.stored_details(*table.find(77))->arguments.empty());
  CHECK(table.find(79) != nullptr);
  read_options lean;
  lean.proc = proc.what().proc;
  std::error_code ec;
  CHECK(process_table::read(lean, ec).size() == 2);
  ::close(held);
}

TEST_CASE("stat files that are none are left out") {
  const made_up proc;
  const auto put = [&](int pid, const std::string& text) {
    proc.add(pid);
    std::ofstream(proc.root / (std::to_string(pid) + "/stat")) << text;
  };
  put(10, "");
  put(11, "garbage");
  put(12, "12 (cut");
  put(13, "13 (cut) S 1 2");
  put(14, "99 (another) S 1 2 3 0 -1 0 0 0 0 0 7 8 0 0 20 0 1 0 500 1000 25\n");
  put(15, std::string(100'000, '('));
  put(16, "-1 (x) S 1 2 3 0 -1 0 0 0 0 0 7 8 0 0 20 0 1 0 500 1000 25\n");
  proc.add(17);
  std::filesystem::create_directory(proc.root / "18");
  std::ofstream(proc.root / "19") << "a file";
  std::filesystem::create_directory(proc.root / "99999999999999999999");
  std::filesystem::create_directory(proc.root / "12x");
  std::filesystem::create_symlink("loop", proc.root / "loop");
  std::filesystem::create_symlink("20", proc.root / "20");
  const process_table table = proc.read();
  REQUIRE(table.size() == 1);
  CHECK(table[0].id.pid == 17);
}

TEST_CASE("files without an end are read to the limit") {
  const made_up proc;
  proc.add(77);
  const std::string cmdline = proc.root / "77/cmdline";
  std::filesystem::remove(cmdline);
  std::filesystem::create_symlink("/dev/zero", cmdline);
  const std::string cgroup = proc.root / "77/cgroup";
  std::ofstream(cgroup) << "0::/";
  REQUIRE(::truncate(cgroup.c_str(), off_t{10} << 30) == 0);  // a hole
  read_options what = proc.what();
  what.markers = false;
  what.max_arguments = 100'000;
  std::error_code ec;
  const process_table table = process_table::read(what, ec);
  CHECK(!ec);
  REQUIRE(table.size() == 1);
  CHECK(table.stored_details(table[0])->arguments_cut);
  CHECK(table.stored_details(table[0])->cgroup.size() <= 16'384);
}

TEST_CASE("a process in an uninterruptible wait is listed, its memory is left alone") {
  const made_up proc;
  proc.add(77, "stuck", 'D');
  const process_table table = proc.read();
  REQUIRE(table.size() == 1);
  CHECK(table[0].state == process_state::waiting);
  const process_details& got = *table.stored_details(table[0]);
  CHECK(got.arguments.empty());
  CHECK(got.arguments_fault == std::errc::resource_unavailable_try_again);
  CHECK(got.markers_fault == std::errc::resource_unavailable_try_again);
  CHECK(got.cgroup == "0::/\n");
}

TEST_CASE("many processes in such a wait don't add up to a long one") {
  const made_up proc;
  for (int pid = 100; pid < 400; ++pid) proc.add(pid, "stuck", 'D');
  const auto begin = std::chrono::steady_clock::now();
  CHECK(proc.read().size() == 300);
  // 300 times 50 ms would be 15 s.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("no /proc, no directory: an error") {
  const temporary_directory empty;
  std::error_code ec;
  read_options what;
  what.proc = empty / "none";
  CHECK(process_table::read(what, ec).empty());
  CHECK(ec == std::errc::no_such_file_or_directory);
  what.proc = empty.path().string();
  CHECK(process_table::read(what, ec).empty());
  CHECK(!ec);
  std::ofstream(empty / "file") << "x";
  what.proc = empty / "file";
  process_table::read(what, ec);
  CHECK(ec == std::errc::not_a_directory);
#if INSTANCE_GUARD_EXCEPTIONS
  CHECK_THROWS_AS(process_table::read(what), std::system_error);
#endif
}

TEST_CASE("without descriptors it says so, instead of giving half a table") {
  forked poor([](const support::teller&) {
    const rlimit none = {4, 4};
    ::setrlimit(RLIMIT_NOFILE, &none);
    for (int i = 3; i < 16; ++i) ::close(i);
    // Room for /proc itself, not for what is in it.
    std::error_code ec;
    const process_table table = process_table::read(ec);
    return ec == std::errc::too_many_files_open && table.empty() ? 0 : 1;
  });
  CHECK(poor.wait().code() == 0);
}

TEST_CASE("a /proc of another pid namespace is refused") {
  if (!support::is_root()) {
    MESSAGE("skipped: needs root for namespaces");
    return;
  }
  forked inside([](const support::teller& to) {
    // /proc stays the one of outside.
    if (::unshare(CLONE_NEWPID) != 0) return 77;
    const pid_t child = ::fork();
    if (child == 0) {
      std::error_code ec;
      const process_table table = process_table::read(ec);
      ::_exit(ec == std::errc::no_such_process && table.empty() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    to.say("done");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
  });
  const int code = inside.wait().code();
  if (code == 77) MESSAGE("skipped: no namespaces here");
  else CHECK(code == 0);
}

TEST_CASE("hidepid: what is hidden from a user is told, by the table and by the census") {
  if (!support::is_root()) {
    MESSAGE("skipped: needs root to mount");
    return;
  }
  for (const bool listed : {true, false}) {
    CAPTURE(listed);
    forked hidden([&](const support::teller&) {
      if (!with_own_proc(listed ? "hidepid=1" : "hidepid=2")) return 77;
      if (!support::become(support::nobody)) return 77;
      ::prctl(PR_SET_DUMPABLE, 1);  // as after an exec: else its own children are hidden as well
      const pid_t own = ::fork();
      if (own == 0) {
        ::alarm(60);
        for (;;) ::pause();
      }
      if (own < 0) return 77;
      const pid_t ended = ::fork();
      if (ended == 0) ::_exit(0);
      if (ended < 0) return 77;
      siginfo_t info = {};
      ::waitid(P_PID, static_cast<id_t>(ended), &info, WEXITED | WNOWAIT);
      std::error_code ec;
      const process_table earlier = process_table::read();
      const process_table table = process_table::read(read_options::everything(), ec);
      census_options options;
      options.all_users = true;
      const census found = take_census(table, &earlier, options);
      for (const pid_t each : {own, ended}) {
        ::kill(each, SIGKILL);
        ::waitpid(each, nullptr, 0);
      }
      if (ec) return 1;
      if (table.find(own) == nullptr || table.find(::getpid()) == nullptr) return 2;
      if (table.find(1) != nullptr) return 3;
      if (listed && table.unreadable() == 0) return 4;
      if (!listed && !table.hides_others()) return 5;
      if (listed && table.hides_others()) return 6;
      // Its own zombie is a ghost all the same, and that others could not be looked at is said.
      // (Whatever else this user has on the host just now.)
      const auto is_it = [&](const ghost& each) {
        return each.kind == ghost_kind::zombie && each.processes.size() == 1 &&
               each.processes[0].process.id.pid == ended;
      };
      if (std::none_of(found.ghosts.begin(), found.ghosts.end(), is_it)) return 7;
      if (found.complete) return 9;
      for (const blind_spot& each : found.blind_spots)
        if (each.what == (listed ? "other_users" : "hidden")) return 0;
      return 10;
    });
    const int code = hidden.wait().code();
    if (code == 77) MESSAGE("skipped: can't mount here");
    else CHECK(code == 0);
  }
}
