// How a child ended comes back as it was.
#include <instance_guard/process_group.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <sys/resource.h>
#include <vector>

#include "support/scene.hpp"

using namespace instance_guard;
using support::scene;

TEST_CASE("every exit code comes back") {
  scene s;
  process_group group;
  for (int code = 0; code < 256; ++code) {
    const exit_status status = group.spawn(s.words({"exit=" + std::to_string(code)})).wait();
    CHECK(status.exited());
    CHECK(status.code() == code);
  }
}

TEST_CASE("every signal that ends a process comes back") {
  scene s;
  process_group group;
  const auto ends = [](int number) {
    return number != SIGCHLD && number != SIGCONT && number != SIGURG && number != SIGWINCH && number != SIGSTOP &&
           number != SIGTSTP && number != SIGTTIN && number != SIGTTOU && number != 32 &&
           number != 33;  // glibc keeps two for itself
  };
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (!ends(number)) continue;
    const exit_status status = group.spawn(s.words({"signal=" + std::to_string(number)})).wait();
    CHECK(status.signalled());
    CHECK(status.signal() == number);
    CHECK_FALSE(status.exited());
  }
}

TEST_CASE("a status waits for whoever asks for it, as often as he asks") {
  scene s;
  process_group group;
  std::vector<child> children;
  for (int code = 0; code < 50; ++code) children.push_back(group.spawn(s.words({"exit=" + std::to_string(code)})));
  for (int code = 49; code >= 0; --code) {
    child& each = children[static_cast<std::size_t>(code)];
    CHECK(each.wait().code() == code);
    CHECK(each.wait().code() == code);
    CHECK(each.wait_for(std::chrono::milliseconds(0))->code() == code);
  }
}

TEST_CASE("what a child has used comes with its status") {
  scene s;
  process_group group;
  child busy = group.spawn(s.words({"spin"}), {.out = stdio::pipe()});
  // Some 50 ms of processor time, then the end.
  CHECK(support::wait_until([&] {
    const std::string stat = support::detail::contents("/proc/" + std::to_string(busy.id().pid) + "/stat");
    std::size_t at = stat.rfind(')');
    for (int field = 2; field < 14 && at != stat.npos; ++field) at = stat.find(' ', at + 1);
    return at != stat.npos && std::strtol(stat.c_str() + at, nullptr, 10) >= 5;
  }));
  busy.signal(SIGKILL);
  const rusage used = busy.wait().usage();
  CHECK(used.ru_utime.tv_sec * 1'000'000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec >= 30'000);
  CHECK(used.ru_maxrss > 0);
}
