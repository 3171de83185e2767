// Owner and warden killed at once: the next start finds what is left by the dead owner's record.
#include "stray_stage.hpp"

#include <sys/ptrace.h>

#include <cstring>
#include <thread>

#include <instance_guard/detail/stray_sweep.hpp>

#include "support/other_user.hpp"

using namespace stray_test;
using instance_guard::process_identity;

namespace {

/// What a record would say, and nobody but the strays left.
struct remains {
  process_identity owner = {};
  std::string mark = {};
  ig::dead_owner record() const {
    ig::dead_owner dead;
    dead.process = owner;
    dead.mark = mark;
    dead.record_user = ::geteuid();
    dead.grace = 100ms;
    return dead;
  }
};

/// An owner without a warden that is killed once `act` is done; `count` processes say ready.
remains leave_behind(const support::scene& scene, const std::function<void(const ig::stray_mark&)>& act,
                     std::size_t count, std::vector<pid_t>& pids, bool reap = true,
                     const std::function<void()>& before = {}) {
  const auto [out_read, out_write] = make_pipe();
  const auto [text_read, text_write] = make_pipe();
  const pid_t owner = ::fork();
  if (owner == 0) {
    cap();
    ::dup2(out_write, 1);
    std::string environment = scene.mark();
    ::putenv(environment.data());
    if (before) before();
    std::error_code ec;
    const ig::stray_mark mark = ig::make_stray_mark(ec);
    if (!mark.env_set) ::setenv(ig::mark_variable, mark.nonce, 1);  // a sanitizer's thread counts
    std::string text = ig::mark_text(ig::target_of(mark)) + "\n";
    write_all(text_write, text.data(), text.size());
    act(mark);
    for (;;) ::pause();
  }
  ::close(out_write);
  ::close(text_write);
  const auto line = [](int descriptor) {
    std::string text;
    for (char c = 0; read_all(descriptor, &c, 1) && c != '\n';) text += c;
    return text;
  };
  remains left;
  left.mark = line(text_read);
  std::error_code ec;
  left.owner = process_identity::of(owner, ec);
  while (pids.size() < count) {
    const std::string text = line(out_read);
    if (text.empty()) break;
    if (text.starts_with("ready pid=")) pids.push_back(static_cast<pid_t>(std::atoi(text.c_str() + 10)));
  }
  CHECK(pids.size() == count);
  ::close(out_read);
  ::close(text_read);
  ::kill(owner, SIGKILL);
  if (reap) ::waitpid(owner, nullptr, 0);
  else {
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(owner), &info, WEXITED | WNOWAIT);
  }
  return left;
}

std::string all(const ig::sweep_result& result) {
  outcome shown;
  shown.left = result.left;
  if (result.report) shown.report = *result.report;
  return shown.str();
}

}  // namespace

TEST_CASE("the next start ends what a killed owner and warden left") {
  for (const bool reaped : {true, false}) {  // a dead owner may still be a zombie
    support::scene scene;
    support::canary canary;
    std::vector<pid_t> pids;
    const remains left = leave_behind(
        scene,
        [&](const ig::stray_mark&) {
          const std::string command = scene.helper() + " daemon sleep & " + scene.helper() + " setsid ignore sleep & " +
                                      scene.helper() + " fan=3 sleep & ";
          if (std::system(command.c_str()) != 0) _exit(72);
          copy_that_stays([] { ::setsid(); });
        },
        6, pids, reaped);
    std::error_code ec;
    const auto result = ig::sweep_dead_owner(left.record(), ec);
    CHECK_FALSE(ec);
    CHECK_MESSAGE(result.left == 0, all(result));
    CHECK(result.conclusive);
    CHECK(result.signalled >= 6);
    CHECK(result.spared == 0);
    for (const pid_t pid : pids) CHECK_MESSAGE(!support::alive(pid), all(result));
    CHECK(scene.empty());
    while (::waitpid(left.owner.pid, nullptr, WNOHANG) > 0) {
    }
  }
}

TEST_CASE("a dead owner below another guard is swept as well") {
  support::scene scene;
  std::vector<pid_t> pids;
  const remains left = leave_behind(
      scene,
      [&](const ig::stray_mark&) {
        copy_that_stays();
        if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
      },
      2, pids, true,
      [] {
        std::error_code ec;
        static_cast<void>(ig::make_stray_mark(ec));
      });
  std::error_code ec;
  const auto result = ig::sweep_dead_owner(left.record(), ec);
  CHECK_MESSAGE(result.left == 0, all(result));
  for (const pid_t pid : pids) CHECK_MESSAGE(!support::alive(pid), all(result));
}

TEST_CASE("a living broker's service, and a child that is to be kept, outlive the sweep") {
  support::scene scene;
  std::vector<pid_t> pids;
  const remains left = leave_behind(
      scene,
      [&](const ig::stray_mark&) {
        const std::string command = "INSTANCE_GUARD_KEEP=1 " + scene.helper() + " daemon sleep &";
        if (std::system(command.c_str()) != 0) _exit(72);
      },
      1, pids);
  const auto [out_read, out_write] = make_pipe();
  const pid_t broker = ::fork();
  if (broker == 0) {
    cap();
    ::dup2(out_write, 1);
    ::setenv(ig::mark_variable, left.mark.substr(0, 32).c_str(), 1);
    std::string environment = scene.mark();
    ::putenv(environment.data());
    if (::fork() != 0)
      for (;;) ::pause();
    ::execl(scene.helper().c_str(), "service", "sleep", nullptr);
    _exit(127);
  }
  ::close(out_write);
  char line[64] = {};
  for (std::size_t i = 0; i < sizeof line - 1 && read_all(out_read, line + i, 1) && line[i] != '\n'; ++i) {
  }
  const pid_t service = static_cast<pid_t>(std::atoi(line + 10));
  std::error_code ec;
  const auto result = ig::sweep_dead_owner(left.record(), ec);
  CHECK_FALSE(ec);
  CHECK(result.left == 0);
  CHECK_MESSAGE(result.spared == 2, all(result));
  CHECK(result.signalled == 0);
  CHECK(support::alive(pids.at(0)));
  CHECK(support::alive(service));
  ::kill(broker, SIGKILL);
  ::waitpid(broker, nullptr, 0);
  ::close(out_read);
  scene.end();
}

TEST_CASE("what a subreaper adopted is ended if it adopts for the next start too, else spared") {
  for (const bool shared : {true, false}) {
    CAPTURE(shared);
    support::scene scene;
    const auto [verdict_read, verdict_write] = make_pipe();
    std::fflush(nullptr);
    const pid_t reaper = ::fork();
    if (reaper == 0) {
      // A session's service manager: adopts, and is the parent of the dead owner.
      cap();
      ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
      std::vector<pid_t> pids;
      const remains left = leave_behind(
          scene,
          [&](const ig::stray_mark&) {
            if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
          },
          1, pids);
      if (shared) {
        const pid_t next = ::fork();
        if (next == 0) {
          std::error_code ec;
          const auto result = ig::sweep_dead_owner(left.record(), ec);
          _exit(!ec && result.left == 0 && result.signalled == 1 && !support::alive(pids.at(0)) ? 0 : 1);
        }
        int status = 0;
        ::waitpid(next, &status, 0);
        write_all(verdict_write, &status, sizeof status);
        _exit(0);
      }
      write_all(verdict_write, &left.owner, sizeof left.owner);
      write_all(verdict_write, left.mark.data(), 49);
      write_all(verdict_write, &pids.at(0), sizeof(pid_t));
      for (;;) ::pause();
    }
    ::close(verdict_write);
    if (shared) {
      int status = -1;
      CHECK(read_all(verdict_read, &status, sizeof status));
      CHECK(status == 0);
    } else {
      remains left;
      left.mark.resize(49);
      pid_t stray = 0;
      CHECK(read_all(verdict_read, &left.owner, sizeof left.owner));
      CHECK(read_all(verdict_read, left.mark.data(), 49));
      CHECK(read_all(verdict_read, &stray, sizeof stray));
      std::error_code ec;
      const auto result = ig::sweep_dead_owner(left.record(), ec);
      CHECK(result.left == 0);
      CHECK_MESSAGE(result.signalled == 0, all(result));
      CHECK(result.spared == 1);
      CHECK(support::alive(stray));
    }
    ::close(verdict_read);
    ::kill(reaper, SIGKILL);
    ::waitpid(reaper, nullptr, 0);
    scene.end();
  }
}

TEST_CASE("what process 1 adopted is ended also by a next start that another one adopts for") {
  support::scene scene;
  std::vector<pid_t> pids;
  const remains left = leave_behind(
      scene,
      [&](const ig::stray_mark&) {
        if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
      },
      1, pids);
  platform::process_stat facts;
  REQUIRE(platform::read_process_stat(pids.at(0), facts) == 0);
  if (facts.parent != 1) return;  // this test runs below a subreaper itself
  const pid_t reaper = ::fork();
  if (reaper == 0) {
    cap();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    const pid_t next = ::fork();
    if (next == 0) {
      std::error_code ec;
      const auto result = ig::sweep_dead_owner(left.record(), ec);
      _exit(!ec && result.left == 0 && result.signalled == 1 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(next, &status, 0);
    _exit(status == 0 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(reaper, &status, 0);
  CHECK(status == 0);
  CHECK_FALSE(support::alive(pids.at(0)));
}

TEST_CASE("a program that restarts itself by a script: the sweep spares itself and its ancestors") {
  support::scene scene;
  std::vector<pid_t> pids;
  const auto [verdict_read, verdict_write] = make_pipe();
  const remains left = leave_behind(
      scene,
      [&, to = verdict_write](const ig::stray_mark& mark) {
        if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
        const pid_t owner = ::getpid();
        remains here;
        here.owner = process_identity::self();
        here.mark = ig::mark_text(ig::target_of(mark));
        if (::fork() != 0) return;
        // The script: marked, and an orphan once the owner is dead. Its child is the next start.
        cap();
        say_ready();
        while (::getppid() == owner) ::usleep(1000);
        if (::fork() != 0)
          for (;;) ::pause();
        cap();
        const pid_t script = ::getppid();
        std::error_code ec;
        const auto result = ig::sweep_dead_owner(here.record(), ec);
        const int verdict[3] = {result.left, result.signalled, support::alive(script) ? 1 : 0};
        write_all(to, verdict, sizeof verdict);
        ::kill(script, SIGKILL);
        _exit(0);
      },
      2, pids);
  ::close(verdict_write);
  int verdict[3] = {-1, -1, -1};
  CHECK(read_all(verdict_read, verdict, sizeof verdict));
  CHECK(verdict[0] == 0);
  CHECK(verdict[1] == 1);
  CHECK(verdict[2] == 1);
  ::close(verdict_read);
  CHECK(scene.empty());
}

TEST_CASE("a process whose threads have all ended, and are kept by a tracer, holds up nobody") {
  const auto [known_read, known_write] = make_pipe();
  const pid_t half_dead = ::fork();
  if (half_dead == 0) {
    // Traced by the test, which does not ask how the thread has ended.
    std::thread([write = known_write] {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      const pid_t self = ::gettid();
      write_all(write, reinterpret_cast<const char*>(&self), sizeof self);
      ::_exit(0);
    }).join();
  }
  pid_t thread = 0;
  REQUIRE(read_all(known_read, reinterpret_cast<char*>(&thread), sizeof thread));
  instance_guard::platform::process_stat facts;
  const bool staged = support::wait_until([&] {
    return instance_guard::platform::read_process_stat(half_dead, facts) == 0 && facts.state == 'Z' &&
           facts.threads == 2;
  });
  CHECK(staged);
  static ig::stray_buffers buffers;
  static ig::stray_report report;
  ig::stray_target target;
  CHECK(ig::describe_owner(target, ::getpid(), buffers.text, sizeof buffers.text) == 0);
  std::memset(target.nonce, 'a', ig::nonce_digits);
  target.acquired = 0;
  // Others come and go meanwhile: one look of many is enough.
  CHECK(support::wait_until([&] { return ig::strays_signal(target, 0, buffers, report) == 0 && report.conclusive; }));
  CHECK(::waitpid(thread, nullptr, __WALL) == thread);
  CHECK(::waitpid(half_dead, nullptr, 0) == half_dead);
  ::close(known_read), ::close(known_write);
}

TEST_CASE("nothing is ended for a record that can't be of a dead owner here") {
  support::scene scene;
  std::vector<pid_t> pids;
  const remains left = leave_behind(
      scene,
      [&](const ig::stray_mark&) {
        if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
      },
      1, pids);
  const auto spares = [&](const ig::dead_owner& dead) {
    std::error_code ec;
    const auto result = ig::sweep_dead_owner(dead, ec);
    CHECK_FALSE(ec);
    CHECK(result.signalled == 0);
    CHECK(support::alive(pids.at(0)));
  };
  ig::dead_owner dead = left.record();
  dead.process.boot[0] = static_cast<unsigned char>(dead.process.boot[0] + 1);
  spares(dead);
  dead = left.record();
  ++dead.process.pid_namespace;
  spares(dead);
  dead = left.record();
  dead.process = process_identity::self();  // alive
  spares(dead);
  dead = left.record();
  dead.record_user = 12'345;  // whoever wrote the record can only have his own processes ended
  spares(dead);
  const std::string bare = left.mark.substr(0, 32);  // no cgroup
  dead = left.record();
  dead.mark = bare;
  spares(dead);
  for (const char* text : {"", "x", "0123", "INSTANCE_GUARD_MARK=0123456789abcdef0123456789abcdef"}) {
    dead = left.record();
    dead.mark = text;
    spares(dead);
  }
  // The control: it was there to be ended.
  std::error_code ec;
  const auto result = ig::sweep_dead_owner(left.record(), ec);
  CHECK(result.signalled == 1);
  CHECK_FALSE(support::alive(pids.at(0)));
}

TEST_CASE("the text of a mark is read back as it was written, and nothing else is") {
  std::error_code ec;
  ig::stray_mark outer = ig::make_stray_mark(ec);
  ig::stray_mark mark = ig::make_stray_mark(ec);
  const ig::stray_target target = ig::target_of(mark);
  const std::string text = ig::mark_text(target);
  CHECK(text.size() <= ig::mark_text_size);
  CHECK(text.find(outer.nonce) != text.npos);
  ig::stray_target back;
  CHECK(ig::parse_mark_text(text, back));
  CHECK(std::string(back.nonce) == mark.nonce);
  CHECK(back.control_group == target.control_group);
  CHECK(back.control_group_known == target.control_group_known);
  CHECK(std::string(back.enclosing[0]) == target.enclosing[0]);
  for (std::size_t size = 0; size < text.size(); ++size) {
    ig::stray_target cut;
    if (size != 32 && size != 49) CHECK_FALSE(ig::parse_mark_text(text.substr(0, size), cut));
  }
  for (std::size_t at = 0; at < text.size(); ++at)
    for (const char wrong : {'\0', 'g', 'A', ' ', '/', '\xff'}) {
      std::string changed = text;
      changed[at] = wrong;
      CHECK_FALSE(ig::parse_mark_text(changed, back));
    }
  CHECK_FALSE(ig::parse_mark_text(text + "-", back));
  std::string long_text = text.substr(0, 49);
  for (int i = 0; i < 9; ++i) long_text += "-" + std::string(32, 'a');
  CHECK_FALSE(ig::parse_mark_text(long_text, back));
  CHECK(std::string(back.nonce) == mark.nonce);
  ig::remove_stray_mark(mark);
  ig::remove_stray_mark(outer);
}
