// A pid that can't be mistaken, and signals that reach only it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <instance_guard/process_identity.hpp>
#include <thread>

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

// A child of this test that sleeps until it is killed, and is killed and reaped in any case.
struct sleeper {
  pid_t pid;
  sleeper() : pid(fork()) {
    if (pid == 0) {
      alarm(30);
      for (;;) pause();
    }
  }
  ~sleeper() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  void become_zombie() const {
    kill(pid, SIGKILL);
    siginfo_t info;
    waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  }
};

platform::process_stat parsed(const char* text) {
  platform::process_stat out;
  REQUIRE(platform::parse_process_stat(text, std::strlen(text), out));
  return out;
}

}  // namespace

TEST_CASE("an identity is complete and equals itself") {
  const auto self = process_identity::self();
  CHECK(self.pid == getpid());
  CHECK(self.complete());
  CHECK(self.pid_namespace != 0);
  std::error_code ec;
  CHECK(process_identity::of(getpid(), ec) == self);
  CHECK(!ec);
}

TEST_CASE("the child's identity is another than its parent's") {
  const auto parent = process_identity::self();
  const pid_t child = fork();
  if (child == 0) _exit(process_identity::self() == parent || process_identity::self().pid != getpid());
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("a pid that nobody has is no such process") {
  std::error_code ec;
  for (const pid_t pid : {0, -1, 0x7fffffff}) {
    CHECK(!process_identity::of(pid, ec));
    CHECK(ec == std::errc::no_such_process);
  }
}

TEST_CASE("a process may call itself whatever it likes") {
  const auto stat =
      parsed("17 (a) R 1 (b)) S 4 5 6 0 -1 4194560 1 2 3 4 50 60 9 9 20 0 3 0 98765 1000 7 18446744073709551615");
  CHECK(stat.pid == 17);
  CHECK(std::string(stat.name) == "a) R 1 (b)");
  CHECK(stat.state == 'S');
  CHECK(stat.parent == 4);
  CHECK(stat.group == 5);
  CHECK(stat.session == 6);
  CHECK(stat.cpu_time == 110);
  CHECK(stat.threads == 3);
  CHECK(stat.start_time == 98765);
  CHECK(stat.virtual_size == 1000);
  CHECK(stat.resident_pages == 7);
}

TEST_CASE("a stat file cut anywhere is refused, never half believed") {
  const std::string whole = "17 (x) S 4 5 6 0 -1 4194560 1 2 3 4 50 60 9 9 20 0 3 0 98765 1000 7 1844";
  const std::size_t last_needed = whole.rfind(" 1844") - 1;
  for (std::size_t size = 0; size < last_needed; ++size) {
    platform::process_stat out;
    CHECK_MESSAGE(!platform::parse_process_stat(whole.data(), size, out), size);
  }
  platform::process_stat out;
  CHECK(!platform::parse_process_stat(")(", 2, out));
  CHECK(!platform::parse_process_stat("1 ) (", 5, out));
}

TEST_CASE("a process with a hostile name is still found") {
  int ready[2];
  REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_NAME, "x) Z 1 (\n", 0, 0, 0);
    (void)!write(ready[1], "x", 1);
    alarm(30);
    for (;;) pause();
  }
  char byte;
  CHECK(read(ready[0], &byte, 1) == 1);
  close(ready[0]);
  close(ready[1]);
  std::error_code ec;
  const auto who = process_identity::of(child, ec);
  CHECK(!ec);
  CHECK(is_alive(who));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK(!is_alive(who));
}

TEST_CASE("a zombie is dead") {
  sleeper child;
  std::error_code ec;
  const auto who = process_identity::of(child.pid, ec);
  auto handle = process_handle::open(who, ec);
  REQUIRE(!ec);
  CHECK(is_alive(who));
  CHECK(handle.alive());
  child.become_zombie();
  CHECK(!is_alive(who));
  CHECK(!handle.alive());
  CHECK(handle.wait_for(0ms, ec));
}

TEST_CASE("a thread id is no process") {
  std::atomic<pid_t> id{0};
  std::atomic<bool> leave{false};
  std::thread thread([&] {
    id = platform::sys::gettid();
    id.notify_one();
    leave.wait(false);
  });
  id.wait(0);
  CHECK(kill(id, 0) == 0);  // the trap
  std::error_code ec;
  auto who = process_identity::of(id, ec);
  CHECK(!is_alive(who));
  CHECK(!process_handle::open(who, ec));  // else signal() would reach the whole process
  CHECK(ec);
  leave = true;
  leave.notify_one();
  thread.join();
}

TEST_CASE("a process whose main thread has gone is alive while another thread lives") {
  int ready[2];
  REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    std::thread([] {
      for (;;) pause();
    }).detach();
    (void)!write(ready[1], "x", 1);
    platform::system_call(SYS_exit, 0);
  }
  char byte;
  CHECK(read(ready[0], &byte, 1) == 1);
  close(ready[0]);
  close(ready[1]);
  platform::process_stat facts;
  for (int i = 0; i < 5000 && facts.state != 'Z'; ++i) {
    REQUIRE(platform::read_process_stat(child, facts) == 0);
    platform::sys::sleep_for(1'000'000);
  }
  CHECK(facts.state == 'Z');
  std::error_code ec;
  const auto who = process_identity::of(child, ec);
  CHECK(is_alive(who));
  CHECK(process_handle::open(who, ec).alive());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK(!is_alive(who));
}

TEST_CASE("a pid with another start time is somebody else, and is not signalled") {
  sleeper child;
  std::error_code ec;
  auto reused = process_identity::of(child.pid, ec);
  reused.start_time -= 1;
  CHECK(!is_alive(reused));
  auto handle = process_handle::open(reused, ec);
  CHECK(ec == std::errc::no_such_process);
  handle.signal(SIGKILL, ec);
  CHECK(ec == std::errc::no_such_process);
  CHECK(waitpid(child.pid, nullptr, WNOHANG) == 0);
}

TEST_CASE("an identity of another boot is dead, one of another namespace is nobody's to judge") {
  auto who = process_identity::self();
  who.boot[0] ^= 1;
  CHECK(!is_alive(who));
  who = process_identity::self();
  who.pid_namespace += 1;
  CHECK(is_alive(who));
  std::error_code ec;
  CHECK(!process_handle::open(who, ec));
  CHECK(ec == std::errc::not_supported);
}

TEST_CASE("an identity without a start time is never signalled") {
  sleeper child;
  std::error_code ec;
  auto who = process_identity::of(child.pid, ec);
  who.start_time = 0;
  CHECK(!process_handle::open(who, ec));
  CHECK(ec == std::errc::not_supported);
}

TEST_CASE("another user's process is alive") {
  // pid 1 belongs to root; to an ordinary user kill(1, 0) answers EPERM.
  std::error_code ec;
  const auto init = process_identity::of(1, ec);
  REQUIRE(!ec);
  const pid_t child = fork();
  if (child == 0) {
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    _exit(is_alive(init) ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("a handle reaches its process, and knows when it has ended") {
  sleeper child;
  std::error_code ec;
  auto handle = process_handle::open(process_identity::of(child.pid, ec), ec);
  REQUIRE(!ec);
  CHECK(!handle.wait_for(1ms, ec));
  CHECK(!ec);
  handle.signal(SIGTERM, ec);
  CHECK(!ec);
  CHECK(handle.wait_for(10s, ec));
  waitpid(child.pid, nullptr, 0);
  child.pid = 0;
  handle.signal(SIGTERM, ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("a default handle is nobody") {
  process_handle nobody;
  std::error_code ec;
  CHECK(!nobody);
  CHECK(!nobody.alive());
  nobody.signal(0, ec);
  CHECK(ec == std::errc::no_such_process);
}

TEST_CASE("a handle that was moved from is nobody, too") {
  sleeper child;
  std::error_code ec;
  auto handle = process_handle::open(process_identity::of(child.pid, ec), ec);
  REQUIRE(!ec);
  auto& same = handle;
  handle = std::move(same);
  CHECK(handle.alive());
  auto moved = std::move(handle);
  CHECK(!handle);
  CHECK(!handle.alive());
  handle.signal(SIGKILL, ec);
  CHECK(ec == std::errc::no_such_process);
  CHECK(moved.alive());
  CHECK(moved.id().pid == child.pid);
}

#if INSTANCE_GUARD_EXCEPTIONS
TEST_CASE("the throwing forms name the process") {
  try {
    (void)process_identity::of(0x7fffffff);
    FAIL("did not throw");
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::no_such_process);
    CHECK(std::string(error.what()).find("2147483647") != std::string::npos);
  }
}
#endif

TEST_CASE("a deadline never overflows") {
  CHECK(detail::deadline(no_limit).left() == -1);
  CHECK(!detail::deadline(no_limit).passed());
  CHECK(detail::deadline(std::chrono::milliseconds::min()).passed());
  CHECK(detail::deadline(-1ms).passed());
  CHECK(detail::deadline(0ms).passed());
  CHECK(detail::deadline(1h).left() > 3'500'000'000'000);
  CHECK(detail::deadline(no_limit - 1ms).left() == -1);
}
