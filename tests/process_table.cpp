// A snapshot of the processes of this host: its rows, and finding them.
#include <doctest/doctest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <ctime>
#include <instance_guard/process_table.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/forked.hpp"
#include "support/open_descriptors.hpp"
#include "support/other_user.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::scene;

namespace {

process_table now() {
  std::error_code ec;
  process_table table = process_table::read(ec);
  CHECK(!ec);
  return table;
}

int rest() {
  ::alarm(60);
  for (;;) ::pause();
}

std::vector<pid_t> pids_of(const process_range& range) {
  std::vector<pid_t> result;
  for (const process_info& each : range) result.push_back(each.id.pid);
  return result;
}

bool has(const process_range& range, pid_t pid) {
  for (const process_info& each : range)
    if (each.id.pid == pid) return true;
  return false;
}

/// So many threads; a sanitizer has some of its own.
bool is_count(std::uint32_t threads, std::uint32_t expected) {
#ifdef __SANITIZE_THREAD__
  return threads >= expected;
#else
  return threads == expected;
#endif
}

}  // namespace

TEST_CASE("this process is in the table, with what it knows of itself") {
  const process_table table = now();
  const process_info* self = table.find(::getpid());
  REQUIRE(self != nullptr);
  CHECK(self->id == process_identity::self());
  CHECK(self->parent == ::getppid());
  CHECK(self->session == ::getsid(0));
  CHECK(self->group == ::getpgrp());
  CHECK(self->user == ::geteuid());
  CHECK(self->threads == 1);
  CHECK(self->state == process_state::running);
  CHECK(self->resident_bytes > 100'000);
  CHECK(!self->kernel_thread);
  CHECK(!self->ended());
  CHECK(table.find(process_identity::self()) == self);
}

TEST_CASE("rows ascend by pid, and each can be found") {
  const process_table table = now();
  REQUIRE(table.size() > 1);
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (i > 0) CHECK(table[i - 1].id.pid < table[i].id.pid);
    CHECK(table.find(table[i].id.pid) == &table[i]);
  }
  CHECK(table.find(0) == nullptr);
  CHECK(table.find(-1) == nullptr);
  CHECK(table.find(0x7fffffff) == nullptr);
}

TEST_CASE("another process that has the pid of a row is not found by the row's identity") {
  const process_table table = now();
  process_identity other = process_identity::self();
  ++other.start_time;
  CHECK(table.find(other) == nullptr);
  std::error_code ec;
  process_info row = *table.find(::getpid());
  row.id = other;
  const process_details got = table.details(row, read_options::everything(), ec);
  CHECK(ec == std::errc::no_such_process);
  CHECK(got.arguments.empty());
  CHECK(got.executable.path.empty());
}

TEST_CASE("children, and the members of a session, are those that say so") {
  forked child([](const support::teller& to) {
    ::setsid();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) return rest();
    to.say(std::to_string(grandchild));
    rest();
    return 0;
  });
  const auto said = child.line();
  REQUIRE(said);
  const pid_t grandchild = std::stoi(*said);
  const process_table table = now();
  CHECK(has(table.children_of(::getpid()), child.pid()));
  CHECK(pids_of(table.children_of(child.pid())) == std::vector<pid_t>{grandchild});
  CHECK(pids_of(table.session_members(child.pid())) == std::vector<pid_t>{child.pid(), grandchild});
  CHECK(table.children_of(grandchild).empty());
  CHECK(table.session_members(grandchild).size() == 0);
  CHECK(table.find(grandchild)->group == child.pid());
  std::error_code ec;
  process_handle::open(table.find(grandchild)->id, ec).signal(SIGKILL, ec);
  CHECK(!ec);
}

TEST_CASE("every process has its parent in the index, and is listed once") {
  const process_table table = now();
  std::size_t listed = 0;
  pid_t last = -1;
  for (const process_info& each : table)
    if (has(table.children_of(each.parent), each.id.pid)) ++listed;
  CHECK(listed == table.size());
  listed = 0;
  for (const process_info& each : table) {
    if (each.session == last) continue;
    last = each.session;
    CHECK(has(table.session_members(each.session), each.id.pid));
  }
}

TEST_CASE("states: sleeping, stopped, zombie") {
  forked sleeping([](const support::teller&) { return rest(); });
  forked stopped([](const support::teller&) { return rest(); });
  forked zombie([](const support::teller&) { return 0; });
  stopped.signal(SIGSTOP);
  siginfo_t info;
  ::waitid(P_PID, static_cast<id_t>(stopped.pid()), &info, WSTOPPED | WNOWAIT);
  ::waitid(P_PID, static_cast<id_t>(zombie.pid()), &info, WEXITED | WNOWAIT);
  CHECK(support::wait_until([&] {
    const process_table looked = now();
    const process_info* row = looked.find(sleeping.pid());
    return row != nullptr && row->state == process_state::sleeping;
  }));
  const process_table table = now();
  REQUIRE(table.find(stopped.pid()) != nullptr);
  CHECK(table.find(stopped.pid())->state == process_state::stopped);
  REQUIRE(table.find(zombie.pid()) != nullptr);
  CHECK(table.find(zombie.pid())->state == process_state::zombie);
  CHECK(table.find(zombie.pid())->ended());
  CHECK(table.find(zombie.pid())->parent == ::getpid());
  CHECK(table.find(zombie.pid())->user == ::geteuid());
}

TEST_CASE("a process whose main thread has ended is shown as a zombie, and has not ended") {
  const scene s;
  support::program headless = s.start(s.words({"headless", "sleep"}));
  REQUIRE(headless.read_until("ready"));
  CHECK(support::wait_until([&] {
    const process_table table = now();
    const process_info* row = table.find(headless.pid());
    return row != nullptr && row->state == process_state::zombie && row->threads > 1 && !row->ended();
  }));
}

TEST_CASE("threads are counted, and are no processes of their own") {
  forked many([](const support::teller& to) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) threads.emplace_back([] { rest(); });
    to.say("ready");
    rest();
    return 0;
  });
  REQUIRE(many.line());
  const process_table table = now();
  REQUIRE(table.find(many.pid()) != nullptr);
  CHECK(is_count(table.find(many.pid())->threads, 4));
}

TEST_CASE("the start is between the clock before and after, to the hundredth of a second") {
  const auto before = std::chrono::system_clock::now();
  forked child([](const support::teller&) { return rest(); });
  const auto after = std::chrono::system_clock::now();
  const process_table table = now();
  const process_info* row = table.find(child.pid());
  REQUIRE(row != nullptr);
  CHECK(row->started_at >= before - 20ms);
  CHECK(row->started_at <= after + 20ms);
  CHECK(table.age(*row) >= 0ms);
  CHECK(table.taken_at() >= after);
}

TEST_CASE("processor time grows while it computes") {
  forked busy([](const support::teller&) {
    ::alarm(60);
    volatile int turns = 0;
    for (;;) turns = turns + 1;
    return 0;
  });
  CHECK(support::wait_until([&] {
    const process_table table = now();
    const process_info* row = table.find(busy.pid());
    return row != nullptr && row->cpu_time >= 50ms;
  }));
}

TEST_CASE("a controlling terminal is told") {
  const scene s;
  support::terminal front(s.words({"sleep"}), {s.mark()});
  REQUIRE(front.see("ready"));
  const process_table table = now();
  const process_info* row = table.find(front.leader());
  REQUIRE(row != nullptr);
  CHECK(row->terminal != 0);
  CHECK(row->session == front.leader());
}

TEST_CASE("names are bytes: parentheses, newlines, escapes, invalid UTF-8") {
  for (const std::string name :
       {") S 1 1 1 (", "a\nb", "\x1b[2J\x1b]0;x", "\xff\xfe\xc0", "((()))", " ", "fifteen letters"}) {
    forked child([&](const support::teller& to) {
      ::prctl(PR_SET_NAME, name.c_str());
      to.say("named");
      return rest();
    });
    REQUIRE(child.line());
    const process_table table = now();
    const process_info* row = table.find(child.pid());
    REQUIRE(row != nullptr);
    CHECK(row->name() == name);
    CHECK(row->parent == ::getpid());
    CHECK(is_count(row->threads, 1));
  }
}

TEST_CASE("a process that is not dumpable has its true user") {
  forked child([](const support::teller& to) {
    if (support::is_root() && !support::become(support::nobody)) return 77;
    ::prctl(PR_SET_DUMPABLE, 0);
    to.say("ready");
    return rest();
  });
  REQUIRE(child.line());
  const process_table table = now();
  REQUIRE(table.find(child.pid()) != nullptr);
  CHECK(table.find(child.pid())->user == (support::is_root() ? support::nobody : ::geteuid()));
}

TEST_CASE("processes that come and go while it reads are no error") {
  const scene s;
  support::program runner = s.start(s.words({"cap=10", "runner=2"}));
  REQUIRE(runner.read_until("ready"));
  const int descriptors = support::open_descriptors();
  for (int i = 0; i < 40; ++i) {
    std::error_code ec;
    const process_table table = process_table::read(read_options::everything(), ec);
    CHECK(!ec);
    REQUIRE(table.find(::getpid()) != nullptr);
  }
  CHECK(support::open_descriptors() == descriptors);
  s.end();
}

TEST_CASE("a row is small, and a table without details has nothing else") {
  CHECK(sizeof(process_info) <= 160);
  const process_table table = now();
  CHECK(table.stored_details(table[0]) == nullptr);
}

TEST_CASE("a table of rows from elsewhere is sorted, and tells the details it was given") {
  process_info one, two, again;
  one.id.pid = 20;
  one.parent = 10;
  two.id.pid = 10;
  again.id.pid = 20;
  again.parent = 1;
  process_details first, second, third;
  first.cgroup = "first";
  second.cgroup = "second";
  third.cgroup = "third";
  const process_table table = process_table::of({one, two, again}, {first, second, third});
  REQUIRE(table.size() == 2);
  CHECK(table[0].id.pid == 10);
  CHECK(table[1].parent == 1);
  CHECK(pids_of(table.children_of(1)) == std::vector<pid_t>{20});
  CHECK(table.children_of(10).empty());
  std::error_code ec;
  CHECK(table.details(table[1], {}, ec).cgroup == "third");
  CHECK(!ec);
  CHECK(table.stored_details(table[0])->cgroup == "second");
  CHECK(table.details(one, {}, ec).cgroup == "third");  // the same identity
  process_info stranger;
  stranger.id.pid = 30;
  table.details(stranger, {}, ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("an empty table is empty in every way") {
  const process_table table;
  CHECK(table.empty());
  CHECK(table.begin() == table.end());
  CHECK(table.find(1) == nullptr);
  CHECK(table.children_of(1).empty());
  CHECK(table.session_members(1).size() == 0);
}

TEST_CASE("copies and moved tables stay whole") {
  process_table table = now();
  const process_table copy = table;
  const process_table moved = std::move(table);
  for (const process_table* each : {&copy, &moved}) {
    REQUIRE(each->find(::getpid()) != nullptr);
    CHECK(has(each->children_of(::getppid()), ::getpid()));
  }
}
