// query_lock and list_locks: what a name is, without taking or disturbing anything.
#include <doctest/doctest.h>

#include <instance_guard/pid_lockfile.hpp>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "support/other_user.hpp"
#include "support/program.hpp"
#include "support/stepped_process.hpp"
#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

struct place {
  support::temporary_directory directory = {};
  std::string name = support::unique_name("query");
  lock_options options() const {
    lock_options result;
    result.directory = directory.path();
    return result;
  }
  std::string file() const { return directory / (name + ".lock"); }
  support::program start(std::vector<std::string> more = {},
                         const std::string& executable = INSTANCE_GUARD_LOCK_HELPER) const {
    std::vector<std::string> arguments = {executable, name, "directory=" + directory.path().string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return support::program(arguments);
  }
  lock_status query() const { return query_lock(name, options()); }
};

}  // namespace

TEST_CASE("a name is free, held, abandoned, and free again") {
  place here;
  CHECK(here.query().state == lock_state::free);
  CHECK(here.query().path == here.file());
  auto holder = here.start({"version=7"});
  REQUIRE(holder.read_until("taken"));
  lock_status status = here.query();
  CHECK(status.state == lock_state::held);
  CHECK(status.name == here.name);
  REQUIRE(status.holder);
  CHECK(status.holder->process.pid == holder.pid());
  CHECK(status.holder->version == "7");
  CHECK(status.holder->uid == ::geteuid());
  CHECK(!status.replaced_code);
  CHECK(std::chrono::system_clock::now() - status.holder->acquired_at < support::patience);
  holder.signal(SIGKILL);
  REQUIRE(holder.wait());
  status = here.query();
  CHECK(status.state == lock_state::abandoned);
  REQUIRE(status.holder);
  CHECK(status.holder->process.pid == holder.pid());
  { pid_lockfile lock(here.name, here.options()); }
  CHECK(here.query().state == lock_state::free);
}

TEST_CASE("a query makes nothing, also where there is no directory") {
  place here;
  lock_options options = here.options();
  options.directory = here.directory.path() / "missing";
  const lock_status status = query_lock(here.name, options);
  CHECK(status.state == lock_state::free);
  CHECK(status.path == options.directory / (here.name + ".lock"));
  CHECK(!std::filesystem::exists(options.directory));
  std::error_code ec;
  CHECK(query_lock("no/name", options, ec).state == lock_state::free);
  CHECK(ec == errc::invalid_name);
}

TEST_CASE("a lock that is held without its file is held, and its holder is found where it can be") {
  place here;
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove(here.file());
  const lock_status status = here.query();
  CHECK(status.state == lock_state::held);
  if (status.holder) CHECK(status.holder->process.pid == ::getpid());
  const auto all = list_locks(here.options());
  CHECK(std::any_of(all.begin(), all.end(), [&](const lock_status& each) { return each.name == here.name; }));
}

TEST_CASE("what a start would refuse is not free: an error, with the path and the cure") {
  place here;
  const auto check = [&](std::errc why, const std::string& what) {
    std::error_code ec, refused;
    const lock_status status = query_lock(here.name, here.options(), ec);
    pid_lockfile lock(here.name, here.options(), refused);
    CHECK(ec == why);
    CHECK(ec == refused);
    CHECK(status.explanation == lock.explanation());
    CHECK(status.explanation.starts_with(here.file() + what));
    CHECK(status.explanation.find("\n  cure     ") != std::string::npos);
    CHECK(!status.holder);
    const auto all = list_locks(here.options());
    CHECK(std::count_if(all.begin(), all.end(), [&](const lock_status& each) {
            return each.name == here.name && each.explanation == status.explanation;
          }) == 1);
#if INSTANCE_GUARD_EXCEPTIONS
    try {
      static_cast<void>(query_lock(here.name, here.options()));
      FAIL("no exception");
    } catch (const std::system_error& error) {
      CHECK(error.code() == ec);
      CHECK(std::string(error.what()).find(here.file() + what) == 0);
    }
#endif
    std::filesystem::remove(here.file());
  };
  std::filesystem::create_directory(here.file());
  check(std::errc::invalid_argument, " is a directory, not a lock file");
  std::filesystem::create_symlink("/dev/null", here.file());
  check(std::errc::invalid_argument, " is a symbolic link, not a lock file");
  const std::string other = here.directory / "other";
  std::ofstream(other) << "1\n";
  std::filesystem::create_hard_link(other, here.file());
  check(std::errc::too_many_links, " has a second name");
  std::filesystem::remove(other);
  std::ofstream(here.file()) << "1\n";
  if (support::is_root() && ::chown(here.file().c_str(), support::nobody, static_cast<gid_t>(-1)) == 0)
    check(std::errc::operation_not_permitted, " belongs to user ");
  else MESSAGE("skipped in part: only root gives files away");
  std::filesystem::remove(here.file());
  // What has the name goes on having it, whatever lies in its file's place.
  pid_lockfile lock(here.name, here.options());
  std::filesystem::remove(here.file());
  std::filesystem::create_directory(here.file());
  if (lock.owns_lock()) CHECK(here.query().state == lock_state::held);
  std::filesystem::remove(here.file());
}

TEST_CASE("a held lock with a damaged record is held, and its holder is found where it can be, and stopped") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  std::filesystem::resize_file(here.file(), 20);
  const lock_status status = here.query();
  CHECK(status.state == lock_state::held);
  if (!platform::has_socket_lock) {
    CHECK(!status.holder);
    return;
  }
  REQUIRE(status.holder);
  CHECK(status.holder->process.pid == holder.pid());
  stop_options options;
  options.directory = here.directory.path();
  CHECK(stop_holder(here.name, options).ended);
  CHECK(holder.wait());
}

TEST_CASE("of a holder in another pid namespace nothing is said that is true of its pid here, and it is let be") {
  place here;
  // Process 1 there: here that is above everybody.
  support::program holder({"unshare", "--fork", "--kill-child", "--pid", "--mount-proc", INSTANCE_GUARD_LOCK_HELPER,
                           here.name, "directory=" + here.directory.path().string()});
  if (!holder.read_until("taken")) {
    MESSAGE("skipped: no pid namespace");
    return;
  }
  const lock_status status = here.query();
  CHECK(status.state == lock_state::held);
  REQUIRE(status.holder);
  CHECK(status.holder->process.pid == 1);
  CHECK(status.children.empty());
  CHECK(!status.replaced_code);
  stop_options options;
  options.directory = here.directory.path();
  std::error_code ec;
  const stop_result stopped = stop_holder(here.name, options, ec);
  CHECK(ec == errc::already_running);
  CHECK(stopped.explanation.find("not stopped: it is in another pid namespace\n") != std::string::npos);
  CHECK(here.query().state == lock_state::held);
  holder.signal(SIGKILL);
  CHECK(holder.wait());
}

TEST_CASE("queries without a pause never make a start fail") {
  place here;
  std::atomic<bool> stop{false};
  std::atomic<int> queries{0}, wrong{0};
  std::thread curious([&] {
    while (!stop) {
      std::error_code ec;
      query_lock(here.name, here.options(), ec);
      if (ec) ++wrong;
      list_locks(here.options(), ec);
      ++queries;
    }
  });
  int refused = 0;
  for (int i = 0; i < 100 || queries < 20; ++i) {
    std::error_code ec;
    pid_lockfile lock(here.name, here.options(), ec);
    if (ec) ++refused;
  }
  stop = true;
  curious.join();
  CHECK(refused == 0);
  CHECK(wrong == 0);
}

TEST_CASE("a query takes no lock, not even for a moment") {
  place here;
  for (const bool held : {false, true}) {
    std::ofstream(here.file()) << "left\n";
    pid_lockfile lock;
    if (held) lock = pid_lockfile(here.name, here.options());
    support::stepped_process one([&] {
      std::error_code ec;
      query_lock(here.name, here.options(), ec);
      list_locks(here.options(), ec);
      return ec ? 1 : 0;
    });
    if (!one.possible()) return;
    CHECK(!one.run_to(SYS_flock));
    CHECK(one.status() == 0);
  }
}

TEST_CASE("a query never shows a mixed record") {
  place here;
  // Two holders in turn, one with a long record; the reader sees either whole.
  auto* stop =
      new (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) std::atomic<int>(0);
  pid_t writers[2];
  for (int w = 0; w < 2; ++w) {
    writers[w] = ::fork();
    REQUIRE(writers[w] >= 0);
    if (writers[w] == 0) {
      ::alarm(300);  // ends by itself, whatever becomes of the test
      lock_options options = here.options();
      options.wait = support::patience;
      options.version = w == 0 ? "short" : std::string(150, 'l');
      while (*stop == 0) {
        std::error_code ec;
        pid_lockfile lock(here.name, options, ec);
        if (ec) ::_exit(1);
        for (int i = 0; i < 20; ++i) {  // rewritten again and again while it is held
          lock_record changes = lock.record();
          changes.arguments = std::vector<std::string>(static_cast<std::size_t>(i % 5) * 10, std::string(20, 'x'));
          detail::lock_update_record(lock, changes, ec);
        }
      }
      ::_exit(0);
    }
  }
  int seen[2] = {}, wrong = 0;
  for (int i = 0; i < 2000 && (i < 60 || seen[0] == 0 || seen[1] == 0); ++i) {
    std::error_code ec;
    const lock_status status = query_lock(here.name, here.options(), ec);
    if (!status.holder || status.holder->version.empty()) continue;  // empty: seen by its socket
    const int w = status.holder->version == "short" ? 0 : 1;
    ++seen[w];
    if (status.holder->process.pid != writers[w]) ++wrong;
  }
  *stop = 1;
  for (const pid_t writer : writers) {
    int status = 0;
    ::waitpid(writer, &status, 0);
    CHECK(status == 0);
  }
  ::munmap(stop, 4096);
  CHECK(wrong == 0);
  CHECK(seen[0] > 0);
  CHECK(seen[1] > 0);
}

TEST_CASE("a name is held in every query while its holder rewrites the record") {
  place here;
  const pid_t writer = ::fork();
  if (writer == 0) {
    ::alarm(300);
    std::error_code ec;
    pid_lockfile lock(here.name, here.options(), ec);
    for (std::size_t i = 0;; ++i) {
      lock_record changes = lock.record();
      changes.arguments = std::vector<std::string>(i % 5 * 10, std::string(20, 'x'));
      detail::lock_update_record(lock, changes, ec);
    }
  }
  CHECK(support::wait_until([&] { return here.query().state == lock_state::held; }));
  for (int i = 0; i < 60; ++i) {
    const lock_status status = here.query();
    CHECK(status.state == lock_state::held);
    if (status.holder) CHECK(status.holder->process.pid == writer);
  }
  ::kill(writer, SIGKILL);
  ::waitpid(writer, nullptr, 0);
}

TEST_CASE("refused starts are listed with the holder, the last ones, and go when it goes") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  CHECK(here.query().refusals.empty());
  std::vector<pid_t> refused;
  for (int i = 0; i < 3; ++i) {
    auto other = here.start();
    REQUIRE(other.read_until("refused"));
    REQUIRE(other.wait());
    refused.push_back(other.pid());
  }
  lock_status status = here.query();
  REQUIRE(status.refusals.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(status.refusals[i].pid == refused[i]);
    CHECK(!status.refusals[i].started_from.empty());
    CHECK(std::chrono::system_clock::now() - status.refusals[i].at < support::patience);
  }
  std::error_code ec;
  for (int i = 0; i < 300; ++i) pid_lockfile again(here.name, here.options(), ec);
  CHECK(std::filesystem::file_size(here.directory / (here.name + ".refused")) <= 4096);
  status = here.query();
  CHECK(status.refusals.size() > 50);
  CHECK(status.refusals.back().pid == ::getpid());
  holder.write("release\n");
  CHECK(holder.read_line() == "released");
  CHECK(here.query().refusals.empty());
  CHECK(std::filesystem::is_empty(here.directory.path()));
}

TEST_CASE("a file of refusals that is something else is left alone") {
  place here;
  const std::string victim = here.directory / "victim";
  std::ofstream(victim) << "precious";
  std::filesystem::create_symlink(victim, here.directory / (here.name + ".refused"));
  auto holder = here.start();
  // Taking the name removes the link, not what it leads to.
  REQUIRE(holder.read_until("taken"));
  std::filesystem::create_symlink(victim, here.directory / (here.name + ".refused"));
  std::error_code ec;
  pid_lockfile lock(here.name, here.options(), ec);
  CHECK(ec == errc::already_running);
  CHECK(std::filesystem::file_size(victim) == 8);
  CHECK(here.query().refusals.empty());
}

TEST_CASE("a holder whose executable was replaced or deleted runs replaced code") {
  place here;
  const std::string executable = here.directory / "bot";
  std::filesystem::copy_file(INSTANCE_GUARD_LOCK_HELPER, executable);
  auto holder = here.start({}, executable);
  REQUIRE(holder.read_until("taken"));
  CHECK(!here.query().replaced_code);
  SUBCASE("replaced") {
    std::filesystem::copy_file(INSTANCE_GUARD_LOCK_HELPER, executable + ".new");
    std::filesystem::rename(executable + ".new", executable);
  }
  SUBCASE("deleted") { std::filesystem::remove(executable); }
  const lock_status status = here.query();
  CHECK(status.replaced_code);
  REQUIRE(status.replaced_at);
  CHECK(std::chrono::system_clock::now() - *status.replaced_at < support::patience);
  std::error_code ec;
  pid_lockfile refused(here.name, here.options(), ec);
  REQUIRE(refused.holder());
  std::chrono::system_clock::time_point when;
  CHECK(detail::code_replaced_at(*refused.holder(), when));
}

TEST_CASE("the children of a holder and of its warden are listed, with their descendants") {
  place here;
  auto holder = here.start();
  REQUIRE(holder.read_until("taken"));
  CHECK(here.query().children.empty());
  holder.write("fork\n");
  REQUIRE(holder.read_until("forked"));
  CHECK(here.query().children.size() == 1);
  holder.write("warden 0\n");
  REQUIRE(holder.read_until("warden"));
  CHECK(here.query().children.size() == 1);  // the warden is none
  const auto warden = here.query().holder->warden;
  std::error_code ec;
  process_handle::open(here.query().children.at(0), ec).signal(SIGKILL, ec);
  process_handle::open(warden, ec).signal(SIGKILL, ec);
}

TEST_CASE("in a list each holder has its own children, also one that descends from another") {
  place here;
  auto first = here.start();
  pid_lockfile mine(here.name + "-a", here.options());
  auto second =
      support::program({INSTANCE_GUARD_LOCK_HELPER, here.name + "-b", "directory=" + here.directory.path().string()});
  std::vector<process_identity> forked;
  for (support::program* each : {&first, &second}) {
    REQUIRE(each->read_until("taken"));
    each->write("fork\n");
    const auto answer = each->read_until("forked ");
    REQUIRE(answer);
    forked.push_back(process_identity::of(std::stoi(answer->substr(7))));
  }
  std::vector<process_identity> children;
  for (const lock_status& each : list_locks(here.options())) {
    if (each.name == here.name + "-a") CHECK(each.children.size() >= 4);
    if (!each.name.starts_with(here.name) || each.name.ends_with("-a")) continue;
    children.insert(children.end(), each.children.begin(), each.children.end());
  }
  CHECK(children == forked);
  std::error_code ec;
  for (const process_identity& each : forked) process_handle::open(each, ec).signal(SIGKILL, ec);
}

TEST_CASE("all names of a directory are listed in order, with what they are") {
  support::temporary_directory directory;
  const lock_options options = {.directory = directory.path()};
  const std::string base = support::unique_name("list");
  pid_lockfile b(base + "-b", options), a(base + "-a", options);
  {
    auto gone = support::program({INSTANCE_GUARD_LOCK_HELPER, base + "-c", "directory=" + directory.path().string()});
    REQUIRE(gone.read_until("taken"));
  }  // killed
  std::ofstream(directory / "no name.lock") << "x";
  std::ofstream(directory / "other.txt") << "x";
  std::ofstream(directory / (base + "-d.lock")).flush();  // empty: nobody finished taking it
  std::vector<std::string> names;
  std::vector<lock_state> states;
  for (const lock_status& each : list_locks(options))
    if (each.name.starts_with(base)) names.push_back(each.name), states.push_back(each.state);
  CHECK(names == std::vector<std::string>{base + "-a", base + "-b", base + "-c"});
  CHECK(states == std::vector<lock_state>{lock_state::held, lock_state::held, lock_state::abandoned});
}

TEST_CASE("the same name under another user does not refuse, but is reported") {
  if (!support::is_root()) {
    MESSAGE("skipped: being several users needs root");
    return;
  }
  place here;
  const std::string theirs = here.directory / "theirs";
  here.directory.open_to_all();
  auto other = support::program({INSTANCE_GUARD_LOCK_HELPER, here.name, "directory=" + theirs},
                                {.before_exec = [] { return support::become(support::nobody); }});
  REQUIRE(other.read_line().value_or("").starts_with("taken"));
  lock_options options = here.options();
  options.directory = here.directory.path() / "mine";
  pid_lockfile lock(here.name, options);
  const lock_status status = query_lock(here.name, options);
  REQUIRE(status.others.size() == 1);
  CHECK(status.others[0].uid == support::nobody);
  CHECK(status.others[0].user == "nobody");
  if (status.others[0].pid != 0) CHECK(status.others[0].pid == other.pid());
  // ... and the other way round.
  int answer[2];
  REQUIRE(::pipe(answer) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    lock_options look;
    look.directory = theirs;
    std::error_code ec;
    char ok = 'n';
    if (support::become(support::nobody)) {
      const lock_status seen = query_lock(here.name, look, ec);
      if (seen.state == lock_state::held && seen.others.size() == 1 && seen.others[0].uid == 0) ok = 'y';
    }
    ::_exit(::write(answer[1], &ok, 1) == 1 ? 0 : 1);
  }
  char ok = 0;
  CHECK(::read(answer[0], &ok, 1) == 1);
  CHECK(ok == 'y');
  ::waitpid(pid, nullptr, 0);
  ::close(answer[0]);
  ::close(answer[1]);
}
