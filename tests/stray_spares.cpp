// Nobody else: who carries no mark, or carries it without being left alone, is not signalled.
#include "stray_stage.hpp"

#include <memory>
#include <set>
#include <sys/stat.h>
#include <thread>

#include "support/other_user.hpp"
#include "support/sanitizer.hpp"

using namespace stray_test;

namespace {

/// A service manager of sorts: starts what it is told, in the environment that it is given.
/// One line a request: "MARK WORD WORD ...". The service is its child; "daemonize" is not asked for.
class broker {
 public:
  /// `prepare` runs in the broker before it takes requests.
  explicit broker(const support::scene& scene, const std::function<void()>& prepare = {}) {
    const auto [read_end, write_end] = make_pipe();
    const auto [out_read, out_write] = make_pipe();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(write_end);
      ::dup2(out_write, 1);
      std::string environment = scene.mark();
      ::putenv(environment.data());
      if (prepare) prepare();
      serve(scene, read_end);
    }
    ::close(read_end);
    ::close(out_write);
    requests_.reset(write_end);
    out_.reset(out_read);
  }
  ~broker() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  int requests() const { return requests_.get(); }

  /// The pid of the service that was started last.
  pid_t service() {
    std::string line;
    for (char c = 0; read_all(out_.get(), &c, 1) && c != '\n';) line += c;
    REQUIRE(line.starts_with("ready pid="));
    return static_cast<pid_t>(std::atoi(line.c_str() + 10));
  }

  [[noreturn]] static void serve(const support::scene& scene, int requests) {
    cap(120);
    ::signal(SIGCHLD, SIG_IGN);
    for (char nonce[ig::nonce_digits]; read_all(requests, nonce, sizeof nonce);) {
      if (::fork() != 0) continue;
      ::setsid();
      ::setenv(ig::mark_variable, std::string(nonce, sizeof nonce).c_str(), 1);
      ::execl(scene.helper().c_str(), "service", "sleep", nullptr);
      _exit(127);
    }
    for (;;) ::pause();
  }

 private:
  pid_t pid_ = -1;
  instance_guard::file_descriptor requests_, out_;
};

void spared(const outcome& end, pid_t pid, ig::stray_fate why) {
  CHECK_MESSAGE(support::alive(pid), end.str());
  CHECK_MESSAGE(end.fate(pid) == why, end.str());
  CHECK_FALSE(end.signalled(pid));
}

/// Both ends of an owner.
template <class Act>
void both_ways(Act act) {
  for (const bool killed : {true, false}) {
    CAPTURE(killed);
    act([killed](stage& there) { return killed ? there.kill() : there.leave(); });
  }
}

}  // namespace

TEST_CASE("a service that a living broker started in the program's environment is spared") {
  both_ways([](auto finish) {
    support::scene scene;
    broker manager(scene);
    stage there(scene, [&](const ig::stray_mark& mark) {
      write_all(manager.requests(), mark.nonce, ig::nonce_digits);
      if (std::system((scene.helper() + " setsid sleep &").c_str()) != 0) _exit(72);
    });
    const pid_t service = manager.service();
    const pid_t stray = there.ready(1).at(0);
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    spared(end, service, ig::stray_fate::supervised);
    CHECK(end.signalled(stray));
    CHECK_FALSE(support::alive(stray));
    CHECK(support::alive(manager.pid()));
    scene.end();
  });
}

TEST_CASE("also where the broker is an ancestor of the program, as pm2 is") {
  both_ways([](auto finish) {
    support::scene scene;
    // The test process itself is the broker: parent of the program, and of the service.
    const auto [read_end, write_end] = make_pipe();
    stage there(scene, [&, read = read_end, write = write_end](const ig::stray_mark& mark) {
      ::close(read);
      write_all(write, mark.nonce, ig::nonce_digits);
      if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
    });
    ::close(write_end);
    char nonce[ig::nonce_digits] = {};
    REQUIRE(read_all(read_end, nonce, sizeof nonce));
    ::close(read_end);
    support::program service = scene.start(
        scene.words({"sleep"}), {.environment = {std::string("INSTANCE_GUARD_MARK=") + std::string(nonce, 32)}});
    service.read_until("ready");
    const pid_t stray = there.ready(1).at(0);
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    spared(end, service.pid(), ig::stray_fate::supervised);
    CHECK(end.signalled(stray));
  });
}

TEST_CASE("a child with INSTANCE_GUARD_KEEP=1 is spared, another value does not keep it") {
  both_ways([](auto finish) {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      const std::string command = "INSTANCE_GUARD_KEEP=1 " + scene.helper() + " daemon sleep & " +
                                  "INSTANCE_GUARD_KEEP=0 " + scene.helper() + " daemon sleep &";
      if (std::system(command.c_str()) != 0) _exit(72);
    });
    const auto pids = there.ready(2);
    const outcome end = finish(there);
    CHECK(end.left == 0);
    int alive = 0;
    for (const pid_t pid : pids)
      if (support::alive(pid)) {
        ++alive;
        spared(end, pid, ig::stray_fate::kept);
      }
    CHECK_MESSAGE(alive == 1, end.str());
    scene.end();
  });
}

TEST_CASE("the shell that started the program, its pipeline and its other services are spared") {
  both_ways([](auto finish) {
    support::scene scene;
    support::canary canary;
    // As "bot | tee log" in an entry script that has started a web server: one session, one group.
    std::optional<support::program> web, tee;
    int neighbours[2];
    REQUIRE(::pipe(neighbours) == 0);
    stage there(scene, [&](const ig::stray_mark&) {
      ::dup2(neighbours[1], 2);
      if (std::system((scene.helper() + " sleep >&2 &").c_str()) != 0) _exit(72);
      if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
    });
    ::close(neighbours[1]);
    web.emplace(scene.start(scene.words({"sleep"})));
    web->read_until("ready");
    tee.emplace(scene.start({"cat"}, {.before_exec = [&] { return ::dup2(neighbours[0], 0) == 0; }}));
    ::close(neighbours[0]);
    CHECK(tee->read_until("ready").has_value());
    const pid_t stray = there.ready(1).at(0);
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    CHECK(end.signalled(stray));
    CHECK_FALSE(end.event(web->pid()));
    CHECK_FALSE(end.event(tee->pid()));
    CHECK_FALSE(end.event(::getpid()));
    CHECK_FALSE(end.event(canary.pid()));
    CHECK(support::alive(web->pid()));
    // Its input ends with the program, so it then ends by itself, with success.
    if (!support::alive(there.owner())) CHECK(tee->wait().value_or(instance_guard::exit_status()).success());
    else CHECK(support::alive(tee->pid()));
  });
}

TEST_CASE("a tmux server that was there before, and what the program runs in it, is spared" *
          doctest::skip(::access("/usr/bin/tmux", X_OK) != 0)) {
  both_ways([](auto finish) {
    support::scene scene;
    const std::string socket = scene / "tmux", log = scene / "panes";
    const std::string tmux = "TMUX= tmux -S " + socket + " -f /dev/null ";
    const std::string tell = "exec sh -c 'echo \\$\\$ >>" + log + "; exec " + scene.helper() + " sleep'";
    const std::string start = scene.mark() + " " + tmux + "new-session -d \"" + tell + "\"";
    REQUIRE(std::system(start.c_str()) == 0);
    stage there(scene, [&](const ig::stray_mark& mark) {
      const std::string plain = tmux + "new-window -d \"" + tell + "\"";
      const std::string marked = tmux + "new-window -d -e " + ig::mark_entry(mark) + " \"" + tell + "\"";
      if (std::system(plain.c_str()) != 0 || std::system(marked.c_str()) != 0) _exit(72);
      say_ready();
    });
    there.ready(1);
    const auto lines = [&] {
      std::vector<pid_t> pids;
      const std::string text = support::detail::contents(log);
      for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != text.npos; at = end + 1)
        pids.push_back(static_cast<pid_t>(std::atoi(text.c_str() + at)));
      return pids;
    };
    REQUIRE(support::wait_until([&] { return lines().size() == 3; }));
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    for (const pid_t pid : lines()) {
      CHECK_MESSAGE(support::alive(pid), end.str());
      CHECK_FALSE(end.signalled(pid));
    }
    CHECK(std::system((tmux + "kill-server").c_str()) == 0);
    scene.end();
  });
}

TEST_CASE("a process that has acquired a guard of its own is spared, and its copies with it" *
          doctest::skip(support::always_threaded)) {
  both_ways([](auto finish) {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      if (::fork() != 0) return;
      cap();
      ::close(life_line);
      ::setsid();
      std::error_code ec;
      static_cast<void>(ig::make_stray_mark(ec));
      copy_that_stays();
      if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
      say_ready();
      for (;;) ::pause();
    });
    const auto pids = there.ready(3);
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    for (const pid_t pid : pids) {
      CHECK_MESSAGE(support::alive(pid), end.str());
      CHECK_FALSE(end.signalled(pid));
    }
    for (const pid_t pid : pids) ::kill(pid, SIGKILL);
    scene.end();
  });
}

TEST_CASE("below another guard, the inner one's end takes its own strays only") {
  both_ways([](auto finish) {
    support::scene scene;
    stage there(scene,
                [&](const ig::stray_mark&) {
                  if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
                  copy_that_stays();
                },
                {.before_mark = [&] {
                  // An outer guard of the same program, with a child of its own.
                  std::error_code ec;
                  static_cast<void>(ig::make_stray_mark(ec));
                  if (std::system((scene.helper() + " daemon say=outer sleep &").c_str()) != 0) _exit(72);
                }});
    std::set<pid_t> outer, inner;
    for (int i = 0; i < 3;) {
      std::string line = there.read_line();
      REQUIRE_FALSE(line.empty());
      // "outer" comes before that process's "ready", possibly not directly.
      if (!line.starts_with("ready pid=")) continue;
      const pid_t pid = static_cast<pid_t>(std::atoi(line.c_str() + 10));
      const bool from_outer =
          support::detail::contents("/proc/" + std::to_string(pid) + "/cmdline").find("outer") != std::string::npos;
      (from_outer ? outer : inner).insert(pid);
      ++i;
    }
    REQUIRE(outer.size() == 1);
    const outcome end = finish(there);
    CHECK_MESSAGE(end.left == 0, end.str());
    for (const pid_t pid : outer) {
      CHECK(support::alive(pid));
      CHECK_FALSE(end.event(pid));
    }
    for (const pid_t pid : inner) {
      CHECK(end.signalled(pid));
      CHECK_FALSE(support::alive(pid));
    }
    scene.end();
  });
}

TEST_CASE("what is older than the acquisition is not even looked at") {
  both_ways([](auto finish) {
    support::scene scene;
    stage there(scene,
                [&](const ig::stray_mark&) {
                  if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
                },
                {.change = [](ig::stray_target& target) { target.acquired = platform::process_clock_now() + 100; }});
    const pid_t pid = there.ready(1).at(0);
    const outcome end = finish(there);
    CHECK(end.left == 0);
    CHECK(end.report.count == 0);
    CHECK(support::alive(pid));
    scene.end();
  });
}

TEST_CASE("what is in another cgroup is spared, and everything where the owner's is not known") {
  for (const bool known : {true, false})
    both_ways([known](auto finish) {
      support::scene scene;
      stage there(scene,
                  [&](const ig::stray_mark&) {
                    if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
                  },
                  {.change = [known](ig::stray_target& target) {
                    if (known) ++target.control_group;
                    else target.control_group_known = false;
                  }});
      const pid_t pid = there.ready(1).at(0);
      const outcome end = finish(there);
      CHECK(end.left == 0);
      spared(end, pid, ig::stray_fate::other_service);
      scene.end();
    });
}

TEST_CASE("a process in a cgroup of its own is spared" * doctest::skip(!support::is_root())) {
  std::string place;
  for (const char* each : {"/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"})
    if (place.empty() && ::access((std::string(each) + "/cgroup.procs").c_str(), W_OK) == 0)
      place = std::string(each) + "/instance_guard_test_" + std::to_string(::getpid());
  if (place.empty() || ::mkdir(place.c_str(), 0755) != 0) {
    MESSAGE("no cgroup can be made here");
    return;
  }
  {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      const std::string command = "echo $$ >" + place + "/cgroup.procs && exec " + scene.helper() + " daemon sleep";
      if (std::system(("sh -c '" + command + "' &").c_str()) != 0) _exit(72);
    });
    const pid_t pid = there.ready(1).at(0);
    const outcome end = there.kill();
    CHECK(end.left == 0);
    spared(end, pid, ig::stray_fate::other_service);
    scene.end();
  }
  CHECK(support::wait_until([&] { return ::rmdir(place.c_str()) == 0; }));
}

TEST_CASE("a process in another pid namespace is spared" * doctest::skip(!support::is_root())) {
  support::scene scene;
  stage there(scene, [&](const ig::stray_mark&) {
    if (::fork() != 0) return;
    cap();
    ::close(life_line);
    if (::unshare(CLONE_NEWPID) != 0) _exit(72);
    const pid_t child = ::fork();
    if (child != 0) {
      char line[64];
      const int size = std::snprintf(line, sizeof line, "ready pid=%d\n", child);
      write_all(1, line, static_cast<std::size_t>(size));
      _exit(0);
    }
    cap();
    for (;;) ::pause();
  });
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.kill();
  CHECK(end.left == 0);
  spared(end, pid, ig::stray_fate::other_namespace);
  ::kill(pid, SIGKILL);
}

TEST_CASE("a process of another user is spared" * doctest::skip(!support::is_root())) {
  support::scene scene;
  stage there(scene, [&](const ig::stray_mark&) {
    copy_that_stays([] {
      ::setsid();
      if (!support::become(support::nobody)) _exit(72);
    });
  });
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.kill();
  CHECK(end.left == 0);
  CHECK_FALSE(end.event(pid));
  CHECK(support::alive(pid));
  ::kill(pid, SIGKILL);
}

TEST_CASE("while the warden has children of its own the adopter can't be tried, and nothing is believed") {
  // The warden has a child, so it can't try; and the program has an ancestor beside process 1.
  support::scene scene;
  stage there(scene,
              [&](const ig::stray_mark&) {
                if (std::system((scene.helper() + " daemon sleep &").c_str()) != 0) _exit(72);
              },
              {.grace = 50ms, .killing = 50ms, .change = [](ig::stray_target&) {
                 if (::fork() == 0) {
                   cap(5);
                   for (;;) ::pause();
                 }
               }});
  const pid_t pid = there.ready(1).at(0);
  const outcome end = there.leave();
  CHECK(end.left == 0);
  CHECK_FALSE(end.report.conclusive);
  spared(end, pid, ig::stray_fate::undecided);
  scene.end();
}

TEST_CASE("the threads of a program that says goodbye are no strays, however many it starts meanwhile") {
  support::scene scene;
  stage there(scene,
              [&](const ig::stray_mark&) {
                std::thread([] {
                  for (;;) std::thread([] { ::usleep(2000); }).detach(), ::usleep(50);
                }).detach();
                if (std::system((scene.helper() + " daemon ignore sleep &").c_str()) != 0) _exit(72);
              },
              {.grace = 300ms});
  const pid_t stray = there.ready(1).at(0);
  const outcome end = there.leave();
  CHECK_MESSAGE(end.left == 0, end.str());
  for (int i = 0; i < end.report.count; ++i) CHECK(end.report.events[i].pid == stray);
  CHECK(support::alive(there.owner()));
}

TEST_CASE("the mark is read again before the signal: who has lost it meanwhile is spared") {
  support::scene scene;
  // Here the test itself looks, so that something can happen in the middle of it: after the parent
  // was signalled, and before its child is, the child becomes a program without the mark.
  const auto [go_read, go_write] = make_pipe();
  const auto [out_read, out_write] = make_pipe();
  std::fflush(nullptr);
  const pid_t owner = ::fork();
  if (owner == 0) {
    cap();
    ::dup2(out_write, 1);
    std::error_code ec;
    const ig::stray_mark mark = ig::make_stray_mark(ec);
    const ig::stray_target target = ig::target_of(mark);
    write_all(1, &target, sizeof target);
    if (::fork() == 0) {
      cap();
      const pid_t child = ::fork();
      if (child == 0) {
        cap();
        say_ready();
        char byte = 0;
        read_all(go_read, &byte, 1);
        const std::string entry = scene.mark();
        const char* environment[] = {entry.c_str(), nullptr};
        const char* arguments[] = {"helper", "sleep", nullptr};
        ::execve(scene.helper().c_str(), const_cast<char**>(arguments), const_cast<char**>(environment));
        _exit(127);
      }
      for (;;) ::pause();
    }
    for (;;) ::pause();
  }
  ::close(out_write);
  ig::stray_target target;
  REQUIRE(read_all(out_read, &target, sizeof target));
  const auto line = [&, from = out_read] {
    std::string text;
    for (char c = 0; read_all(from, &c, 1) && c != '\n';) text += c;
    return text;
  };
  const pid_t child = static_cast<pid_t>(std::atoi(line().c_str() + 10));
  struct context {
    std::function<std::string()> line;
    int go = -1;
    int events = 0;
  } here{line, go_write};
  const auto memory = std::make_unique<ig::stray_buffers>();
  const auto report = std::make_unique<ig::stray_report>();
  report->observe = [](const ig::stray_event&, void* to) {
    auto* in = static_cast<context*>(to);
    if (++in->events != 1) return;
    write_all(in->go, "g", 1);
    CHECK(in->line().starts_with("ready pid="));
  };
  report->observer = &here;
  CHECK(ig::strays_signal(target, SIGTERM, *memory, *report) == 2);
  CHECK(report->count == 1);
  CHECK(report->events[0].pid != child);
  CHECK(support::alive(child));
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  for (const int each : {go_read, go_write, out_read}) ::close(each);
  scene.end();
}

TEST_CASE("a warden of another guard in the same program is not taken for a stray") {
  both_ways([](auto finish) {
    support::scene scene;
    stage there(scene, [&](const ig::stray_mark&) {
      copy_that_stays([] {
        ::setsid();
        ig::forget_marks_in_copy();
        platform::rename_self("warden");
      });
    });
    const pid_t pid = there.ready(1).at(0);
    const outcome end = finish(there);
    CHECK(end.left == 0);
    CHECK_FALSE(end.event(pid));
    CHECK(support::alive(pid));
    ::kill(pid, SIGKILL);
  });
}

TEST_CASE("without a mark, and in a /proc that counts otherwise, nobody is signalled") {
  ig::stray_target target;
  const auto memory = std::make_unique<ig::stray_buffers>();
  const auto report = std::make_unique<ig::stray_report>();
  CHECK(ig::strays_signal(target, SIGKILL, *memory, *report) == 0);
  CHECK(report->conclusive);
  CHECK(report->count == 0);
  if (!support::is_root()) return;
  const pid_t child = ::fork();
  if (child == 0) {
    // A new pid namespace that still sees the old /proc.
    if (::unshare(CLONE_NEWPID) != 0) _exit(0);
    const pid_t inner = ::fork();
    if (inner == 0) {
      ig::stray_target mine;
      std::memcpy(mine.nonce, "0123456789abcdef0123456789abcdef", 33);
      _exit(ig::strays_signal(mine, SIGKILL, *memory, *report) == -ENOENT ? 0 : 1);
    }
    int status = 0;
    ::waitpid(inner, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
