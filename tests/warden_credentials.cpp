// The warden does nothing that its owner could not do itself, whatever the owner was before.
#include <algorithm>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <iterator>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <instance_guard/process_group.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <thread>

#include "support/deny_system_calls.hpp"
#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::forked;
using support::read_all;
using support::scene;
using support::teller;
using support::value_of;

namespace {

std::string show(process_group& group, const scene& s) {
  child c = group.spawn(s.words({"show"}), {.out = stdio::pipe()});
  const std::string shown = read_all(c.out());
  c.wait();
  return shown;
}

/// An owner that has a group and one old child, then changes, then starts another child. What
/// `show` says of the new one is told; the old one must still be there, and end with the group.
template <class Change>
std::string shown_after(const scene& s, Change change) {
  std::string shown;
  forked owner([&](teller test) {
    process_group group({.grace = 500ms});
    child old = group.spawn(s.words({"sleep"}), {.out = stdio::pipe()});
    if (support::await_ready(old.out()) == 0) return 1;
    const pid_t first = group.warden().pid;
    if (!change()) {
      test.say("cannot");
      return 0;
    }
    const std::string now = show(group, s);
    if (group.warden().pid == first) test.say("same warden");
    if (!group.warden_alive() || old.wait_for(0ms)) test.say("the old one is gone");
    // The child that the first warden had begun, before it saw that it may not, takes a moment to go.
    if (!support::wait_until([&] { return group.members().size() == 1; }))
      test.say("members " + std::to_string(group.members().size()));
    std::error_code ec;
    if (!group.terminate(ec).proven_empty || ec) test.say("not empty: " + ec.message());
    if (old.wait().signal() != SIGTERM) test.say("the old one was not ended");
    test.say("shown");
    test.say(now + "end of it");
    return 0;
  });
  for (auto line = owner.line(); line; line = owner.line()) {
    if (*line == "cannot") return "cannot";
    if (*line == "shown") {
      for (line = owner.line(); line && *line != "end of it"; line = owner.line()) shown += *line + "\n";
      break;
    }
    FAIL_CHECK(*line);
  }
  CHECK(owner.wait().success());
  return shown;
}

bool drop_capability(int number) {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &head, data) != 0) return false;
  const unsigned keep = ~(1u << (number % 32));
  data[number / 32].effective &= keep;
  data[number / 32].permitted &= keep;
  return ::syscall(SYS_capset, &head, data) == 0;
}

}  // namespace

TEST_CASE("an owner that has dropped root gets no root child") {
  if (!support::is_root()) return;
  const scene s;
  const std::string shown = shown_after(s, [] { return support::become(support::nobody); });
  CHECK(value_of(shown, "status.Uid") == "65534\t65534\t65534\t65534");
  CHECK(value_of(shown, "status.Gid") == "65534\t65534\t65534\t65534");
  CHECK(value_of(shown, "status.Groups") == "");
  CHECK(value_of(shown, "status.CapEff") == "0000000000000000");
}

TEST_CASE("an owner that has dropped its groups or one capability gets a child without them") {
  if (!support::is_root()) return;
  const scene s;
  std::string shown = shown_after(s, [] {
    const gid_t one = 12345;
    return ::setgroups(1, &one) == 0;
  });
  CHECK(value_of(shown, "status.Groups").starts_with("12345"));
  std::string before;
  {
    process_group group;
    before = value_of(show(group, s), "status.CapPrm");
  }
  // Root gets its capabilities back at an exec, unless they are out of the bounding set.
  shown = shown_after(s, [] { return ::prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0; });
  const auto had = std::stoull(before, nullptr, 16);
  CHECK(std::stoull(value_of(shown, "status.CapPrm"), nullptr, 16) == (had & ~(1ull << CAP_SYS_TIME)));
  shown = shown_after(s, [] { return drop_capability(CAP_NET_RAW); });
  CHECK(value_of(shown, "pid") != "(missing)");
}

TEST_CASE("no_new_privs and seccomp of the owner hold for its children") {
  const scene s;
  std::string shown = shown_after(s, [] { return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0; });
  CHECK(value_of(shown, "status.NoNewPrivs") == "1");
  shown = shown_after(s, [] { return support::deny_system_calls({SYS_reboot}, EPERM); });
  CHECK(value_of(shown, "status.Seccomp") == "2");
  // One more filter is one more restriction.
  forked owner([&](teller test) {
    if (!support::deny_system_calls({SYS_reboot}, EPERM)) return 0;
    process_group group;
    if (!support::deny_system_call_with(SYS_prctl, PR_GET_DUMPABLE, EPERM)) return 2;
    const pid_t first = group.warden().pid;
    child c = group.spawn({"true"});
    if (group.warden().pid == first) test.say("same warden");
    return c.wait().success() ? 0 : 3;
  });
  CHECK(owner.line() == std::nullopt);
  CHECK(owner.wait().success());
}

namespace {

std::string own_namespace(const std::string& name) {
  char text[64] = {};
  return ::readlink(("/proc/self/ns/" + name).c_str(), text, sizeof text - 1) > 0 ? std::string(text) : std::string();
}

/// What an owner changes, the namespace that its children are then in, and where a child sees it.
struct change_of_place {
  int flag;
  const char* of_children;
  const char* of_child;
};

constexpr int new_time = 0x80;  // CLONE_NEWTIME, which older headers lack

constexpr change_of_place changes_of_place[] = {
    {CLONE_NEWNET, "net", "net"},          {CLONE_NEWUTS, "uts", "uts"},
    {CLONE_NEWIPC, "ipc", "ipc"},          {CLONE_NEWNS, "mnt", "mnt"},
    {CLONE_NEWUSER, "user", "user"},       {CLONE_NEWPID, "pid_for_children", "pid"},
    {CLONE_NEWCGROUP, "cgroup", "cgroup"}, {new_time, "time_for_children", "time"}};

/// An owner that has a group, changes its place and starts a child: there, or not at all. What is said of it.
std::string where_a_child_is(const change_of_place& change, uid_t user) {
  forked owner([&](teller test) {
    if (user != 0 && !support::become(user)) return 1;
    process_group group({.grace = 200ms});
    const std::string before = own_namespace(change.of_children);
    if (::unshare(change.flag) != 0) {
      test.say("cannot");
      return 0;
    }
    const std::string now = own_namespace(change.of_children);
    std::error_code ec;
    child c = group.spawn({"readlink", std::string("/proc/self/ns/") + change.of_child}, {.out = stdio::pipe()}, ec);
    if (ec) {
      test.say("refused: " + ec.message());
      return 0;
    }
    const std::string seen = support::read_line(c.out());
    if (now == before) test.say("not changed");
    test.say(seen == now ? "there" : "in " + seen + ", owner in " + now + ", before in " + before);
    if (!group.terminate(ec).proven_empty) test.say("not empty: " + ec.message());
    return 0;
  });
  const std::string said = owner.line().value_or("nothing");
  if (said == "cannot")
    MESSAGE("skipped: this user can't have such a namespace here: " << std::string(change.of_child));
  CHECK(owner.line().value_or("no more") == "no more");
  CHECK(owner.wait().success());
  return said;
}

}  // namespace

TEST_CASE("an owner in another namespace gets its children there, or none") {
  const std::string refused = "refused: " + make_error_code(errc::credentials_changed).message();
  if (support::is_root())
    for (const change_of_place& each : changes_of_place) {
      const std::string said = where_a_child_is(each, 0);
      CAPTURE(std::string(each.of_child));
      // A warden there would be the namespace's init.
      if (said != "cannot") CHECK(said == (each.flag == CLONE_NEWPID ? refused : "there"));
    }
  // An ordinary user is root within: no child may be where it was before, which is not. Where the kernel
  // lets nobody look at the owner any more, there is none.
  const std::string said = where_a_child_is(changes_of_place[4], support::is_root() ? support::nobody : 0);
  CAPTURE(said);
  CHECK((said == "there" || said == refused || said == "cannot"));
}

TEST_CASE("an owner whose children are to be in another pid namespace can still fork, and is told at once") {
  if (!support::is_root()) return;
  forked owner([&](teller test) {
    process_group before({.grace = 200ms});
    if (::unshare(CLONE_NEWPID) != 0) return 0;
    std::error_code ec;
    before.spawn({"true"}, ec);
    if (ec != errc::credentials_changed) test.say("spawn: " + ec.message());
    process_group fresh({}, ec);
    if (ec != errc::credentials_changed) test.say("group: " + ec.message());
    process_group above = detail::become_child_of_warden({}, ec);
    if (ec != errc::credentials_changed && ec != errc::threads_running) test.say("everything: " + ec.message());
    // Its own first fork is init there, the next one a process of that namespace.
    const pid_t init = ::fork();
    if (init == 0) {
      for (;;) ::pause();
    }
    const pid_t next = ::fork();
    if (next == 0) ::_exit(0);
    if (init < 0 || next < 0) test.say("can't fork");
    if (init > 0) ::kill(init, SIGKILL);
    for (const pid_t each : {next, init})  // an init ends after everybody else
      if (each > 0) ::waitpid(each, nullptr, 0);
    if (!before.terminate(ec).proven_empty) test.say("not empty: " + ec.message());
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("an owner in another root gets its children there") {
  if (!support::is_root()) return;
  const scene s;
  forked owner([&](teller test) {
    process_group group;
    if (::chroot((s / ".").c_str()) != 0 || ::chdir("/") != 0) return 0;
    std::error_code ec;
    child c = group.spawn({"/bin/true"}, ec);
    if (!ec) test.say("started outside of the new root");  // inside there is no /bin/true
    return 0;
  });
  CHECK(owner.line() == std::nullopt);
  CHECK(owner.wait().success());
}

TEST_CASE("a thread that alone has given up rights gets a child with as few") {
  if (!support::is_root()) return;
  const scene s;
  forked owner([&](teller test) {
    process_group group;
    std::thread other([&] {
      // The raw call changes this thread only; libc would change all.
      if (::syscall(SYS_setresuid, 65'534, 65'534, 65'534) != 0) return test.say("setresuid");
      const std::string shown = show(group, s);
      if (value_of(shown, "status.Uid") != "65534\t65534\t65534\t65534")
        test.say("uid " + value_of(shown, "status.Uid"));
    });
    other.join();
    if (value_of(show(group, s), "status.Uid") != "0\t0\t0\t0") test.say("the main thread lost its rights");
    return 0;
  });
  CHECK(owner.line() == std::nullopt);
  CHECK(owner.wait().success());
}

TEST_CASE("nobody but the owner is heard on the channel, and a request by hand gains nothing") {
  const scene s;
  process_group group;
  detail::group_slot* slot = nullptr;
  for (detail::group_slot& each : detail::group_slots)
    if (each.state == detail::group_slot::live) slot = &each;
  REQUIRE(slot != nullptr);
  const int channel = ::dup(slot->link[0].channel);
  const auto ask_by_hand = [&](auto request) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
    detail::wire::send(channel, &request, sizeof request, nullptr, 0, &ends[1], 1);
    ::close(ends[1]);
    detail::wire::answer answer;
    const auto size = ::recv(ends[0], &answer, sizeof answer, 0);
    ::close(ends[0]);
    return size == static_cast<ssize_t>(sizeof answer) ? answer.error : -2;
  };
  SUBCASE("from a forked copy that kept the channel") {
    forked copy([&](teller) {
      detail::wire::signal_request request;
      request.number = SIGKILL;
      request.token = 1;
      const detail::wire::header goodbye = {detail::wire::kind::goodbye, 0};
      detail::wire::send(channel, &goodbye, sizeof goodbye);
      return ask_by_hand(request) == EPERM ? 0 : 1;
    });
    CHECK(copy.wait().success());
    CHECK(group.spawn({"true"}).wait().success());
  }
  SUBCASE("with nonsense") {
    detail::wire::header head;
    using detail::wire::kind;
    const kind others[] = {kind::terminate, kind::wait_idle, kind::look_idle, kind::goodbye, kind::closed};
    for (std::uint32_t what = 0; what < 40; ++what) {
      head.what = static_cast<kind>(what);
      if (std::find(std::begin(others), std::end(others), head.what) != std::end(others)) continue;
      CHECK(ask_by_hand(head) >= 0);
    }
    detail::wire::spawn_request request;
    request.candidates = 4'000'000'000u;
    CHECK(ask_by_hand(request) == EINVAL);
    request.candidates = 1;
    request.arguments = 1;
    request.text = 0;
    request.text_size = 1 << 20;
    CHECK(ask_by_hand(request) != 0);
    const std::string garbage(200'000, '\xff');
    detail::wire::send(channel, garbage.data(), garbage.size());
    CHECK(group.spawn({"true"}).wait().success());
  }
  SUBCASE("for a signal to somebody else's process") {
    forked bystander([](teller) {
      for (;;) ::pause();
      return 0;
    });
    detail::wire::signal_request request;
    request.number = SIGKILL;
    for (std::uint64_t token : {std::uint64_t{0}, static_cast<std::uint64_t>(bystander.pid())}) {
      request.token = token;
      CHECK(ask_by_hand(request) == ESRCH);
    }
    CHECK(bystander.wait(50ms) == exit_status());
  }
  SUBCASE("for a file outside of its rights") {
    if (!support::is_root()) return;
    // As root it got a warden; as nobody it asks that one to remove a file of root's.
    const std::string victim = s / "victim";
    ::close(::open(victim.c_str(), O_CREAT | O_WRONLY, 0644));
    forked owner([&](teller test) {
      process_group own;
      for (detail::group_slot& each : detail::group_slots)
        if (each.state == detail::group_slot::live) slot = &each;
      if (!support::become(support::nobody)) return 1;
      struct stat facts {};
      ::stat(victim.c_str(), &facts);
      const int file = ::open(victim.c_str(), O_RDONLY), directory = ::open((s / ".").c_str(), O_PATH);
      detail::wire::lock_request request;
      request.device = facts.st_dev;
      request.inode = facts.st_ino;
      std::strcpy(request.file, "victim");
      std::strcpy(request.refused, "victim.refused");
      const int both[] = {file, directory};
      const int result = detail::ask(slot->link[0], request, both, 2);
      if (result != -EKEYREJECTED) test.say("accepted: " + std::to_string(result));
      return 0;
    });
    CHECK(owner.line() == std::nullopt);
    CHECK(owner.wait().success());
    CHECK(::access(victim.c_str(), F_OK) == 0);
  }
  ::close(channel);
}

TEST_CASE("threads with different rights take turns, as often as they like") {
  const scene s;
  forked owner([&](teller test) {
    process_group group;
    const auto start = [&](const char* who) {
      std::error_code ec;
      child c = group.spawn({"/bin/true"}, {}, ec);
      if (ec) test.say(who + (": " + ec.message()));
      else if (!c.wait().success()) test.say(who);
    };
    for (int i = 0; i < 20; ++i) {
      start("first");
      std::thread other([&] {
        if (!support::deny_system_calls({SYS_reboot}, EPERM)) return;  // a filter of its own
        start("other");
      });
      other.join();
    }
    return 0;
  });
  CHECK(owner.line().value_or("nothing") == "nothing");
  CHECK(owner.wait().success());
}

TEST_CASE("what an owner may no longer see, a spawn does not tell it either") {
  if (!support::is_root()) return;
  const scene s;
  REQUIRE(::mkdir((s / "secret").c_str(), 0700) == 0);
  REQUIRE(::mkdir((s / "secret/there").c_str(), 0755) == 0);
  REQUIRE(::chmod((s / ".").c_str(), 0755) == 0);
  forked owner([&](teller test) {
    process_group group;
    if (!support::become(support::nobody)) return 1;
    for (const char* leaf : {"secret/missing", "secret/there"}) {
      std::error_code ec;
      child c = group.spawn({"/bin/true"}, {.working_directory = s / leaf}, ec);
      test.say(ec.message());
    }
    return 0;
  });
  const auto missing = owner.line(), there = owner.line();
  REQUIRE(missing);
  CHECK(missing == there);
  CHECK(*missing == std::make_error_code(std::errc::permission_denied).message());
  CHECK(owner.wait().success());
}
