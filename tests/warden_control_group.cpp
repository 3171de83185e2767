// In a delegated control group, a warden's children are ended by the kernel at once.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <instance_guard/process_group.hpp>
#include <instance_guard/single_instance.hpp>
#include <string>
#include <vector>

#include "support/delegated.hpp"
#include "support/forked.hpp"
#include "support/other_user.hpp"
#include "support/own_pid_namespace.hpp"
#include "support/owner.hpp"
#include "support/read_child.hpp"
#include "support/scene.hpp"
#include "support/service_cgroup.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using namespace support;

namespace {

/// How often somebody has written to a file since.
class writes_to {
 public:
  explicit writes_to(const std::string& file) : events_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    REQUIRE(::inotify_add_watch(events_.get(), file.c_str(), IN_MODIFY) >= 0);
  }
  bool any() const {
    inotify_event event;
    return ::read(events_.get(), &event, sizeof event) > 0;
  }

 private:
  file_descriptor events_;
};

std::string mechanism_of(const termination_report& report) {
  return std::string(to_string(report.mechanism)) + (report.proven_empty ? ", empty" : ", not empty");
}

}  // namespace

TEST_CASE("in a delegated group the report names it, and nothing is left, of the tree or of the group") {
  const delegated place(unique_name("cgroup"));
  if (!place.works) return;
  scene s;
  canary stranger;
  REQUIRE(place.group.add(stranger.pid()));  // in the service, but not started by the guard
  forked owner([&](teller test) {
    if (!place.group.enter()) return 1;
    process_group group({.grace = 50ms});
    process_group inner = group.nested({.grace = 50ms});
    if (!wait_until([&] { return place.group.below().size() == 2; })) test.say("expected a group for each warden");
    for (process_group* each : {&group, &inner})
      for (const char* how : {"ignore", "runner=3", "undying"}) {
        std::vector<std::string> words = s.words({"setsid", how, "sleep"});
        child one = each->spawn(words, {.out = stdio::pipe()});
        if (await_ready(one.out()) == 0) return 2;
      }
    child kept = group.spawn(s.words({"sleep"}), {.out = stdio::pipe(), .outlives = true});
    const pid_t outliving = await_ready(kept.out());
    const std::vector<std::string> made = place.group.below();
    const writes_to one(made[0] + "/cgroup.kill"), two(made[1] + "/cgroup.kill");
    const std::string report = mechanism_of(group.terminate());
    if (report != "cgroup, empty") test.say(report);
    if (!one.any() || !two.any()) test.say("the kernel was not asked");
    const exit_status next = group.spawn({"/bin/true"}).wait();  // nobody is held still any more
    if (!next.success()) test.say("no new child: " + next.str());
    if (const std::string again = mechanism_of(group.terminate()); again != "cgroup, empty")
      test.say("again: " + again);
    const auto left = processes_with(s.helper());
    if (left.size() != 1 || left[0].pid != outliving) test.say("left: " + std::to_string(left.size()));
    ::kill(outliving, SIGKILL);
    return 0;
  });
  for (auto line = owner.line(60s); line; line = owner.line(60s)) FAIL_CHECK(*line);
  CHECK(owner.wait().success());
  CHECK(place.nothing_below());
}

TEST_CASE("a child that asks to be kept is spared, and the others end by signals") {
  const delegated place(unique_name("cgroup"));
  if (!place.works) return;
  scene s;
  pid_t kept = 0;
  forked owner([&](teller test) {
    if (!place.group.enter()) return 1;
    process_group group({.grace = 50ms});
    child one =
        group.spawn({"/usr/bin/env", "INSTANCE_GUARD_KEEP=1", s.helper(), "daemon", "sleep"}, {.out = stdio::pipe()});
    child two = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    const pid_t spared = await_ready(one.out());
    if (spared == 0 || await_ready(two.out()) == 0) return 2;
    const writes_to kill(place.group.below().at(0) + "/cgroup.kill");
    group.terminate();
    if (kill.any()) test.say("the kernel was asked");
    test.say("kept " + std::to_string(spared));
    return 0;
  });
  for (auto line = owner.line(60s); line; line = owner.line(60s))
    if (line->starts_with("kept ")) kept = std::atoi(line->c_str() + 5);
    else FAIL_CHECK(*line);
  CHECK(owner.wait().success());
  REQUIRE(kept > 1);
  const auto left = s.processes();
  CHECK(left.size() == 1);
  CHECK(alive(kept));
  std::string still;
  std::ifstream frozen(place.group.below().at(0) + "/cgroup.freeze");
  std::getline(frozen, still);
  CHECK(still == "0");
  ::kill(kept, SIGKILL);
  REQUIRE(wait_until([&] { return s.empty(); }));
  // The group was not empty when its warden ended: whoever makes one there next removes it.
  REQUIRE(place.group.below().size() == 1);
  forked next([&](teller) {
    if (!place.group.enter()) return 1;
    process_group group;
    return group.spawn({"/bin/true"}).wait().success() && place.group.below().size() == 1 ? 0 : 2;
  });
  CHECK(next.wait().success());
  CHECK(place.nothing_below());
}

TEST_CASE("where a child has made a group below, whose members are not listed, the kernel is not asked") {
  const delegated place(unique_name("cgroup"));
  if (!place.works) return;
  scene s;
  canary stranger;
  forked owner([&](teller test) {
    if (!place.group.enter()) return 1;
    process_group group({.grace = 50ms});
    child one = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (await_ready(one.out()) == 0) return 2;
    const std::string below = place.group.below().at(0) + "/payload";
    if (!std::filesystem::create_directory(below)) return 3;
    if (!(std::ofstream(below + "/cgroup.procs") << stranger.pid()).flush().good()) return 4;
    const std::string report = mechanism_of(group.terminate());
    if (report != "cgroup, empty") test.say(report);
    if (!(std::ofstream(place.group.path() + "/cgroup.procs") << stranger.pid()).flush().good()) return 5;
    std::filesystem::remove(below);
    return 0;
  });
  for (auto line = owner.line(60s); line; line = owner.line(60s)) FAIL_CHECK(*line);
  CHECK(owner.wait().success());
  CHECK(stranger.alive());
  CHECK(place.nothing_below());
}

TEST_CASE("owner and warden killed at once: also what has forgotten everything ends before the next start") {
  for (const bool ordinary : {false, true}) {
    if (ordinary && !is_root()) continue;
    CAPTURE(ordinary);
    const std::string name = unique_name("both");
    const delegated place(name, ordinary ? nobody : ::geteuid());
    if (!place.works) return;
    scene s({INSTANCE_GUARD_TEST_OWNER});
    owner_options options;
    options.arguments = {"grace=100", "guard=" + name, "warden="};
    for (const char* each :
         {"daemon undying ignore renamed cleared closed sleep", "undying cleared runner=2", "sleep"}) {
      options.arguments.push_back("child=" + std::string(each));
      ++options.ready;
    }
    options.arguments.push_back("pause=");
    options.before_exec = [&] { return place.group.enter() && (!ordinary || become(nobody)); };
    {
      owner first(s, options);
      REQUIRE(first.complete());
      REQUIRE(first.warden() > 1);
      ::kill(first.warden(), SIGSTOP);
      first.process().signal(SIGKILL);
      ::kill(first.warden(), SIGKILL);
    }
    CHECK(next_instance_is_alone(s, name, ordinary));
    CHECK(wait_until([&] { return s.empty(); }));
    CHECK(place.nothing_below());
  }
}

TEST_CASE("whatever became of its wardens: what each of them has started ends before the next start") {
  enum class after { nothing, release, new_rights };  // between the first warden's children and the second's
  for (const after then : {after::nothing, after::release, after::new_rights}) {
    CAPTURE(static_cast<int>(then));
    const std::string name = unique_name("wardens");
    const delegated place(name);
    if (!place.works) return;
    scene s({INSTANCE_GUARD_TEST_OWNER});
    forked owner([&](teller test) {
      if (!place.group.enter()) return 1;
      single_instance guard;
      const auto start = [&] {
        if (!guard) guard = single_instance::acquire(name, {.children = {.grace = 50ms}});
        const std::vector<std::string> words =
            s.words({"daemon", "undying", "ignore", "renamed", "cleared", "closed", "sleep"});
        child one = guard.spawn(words, {.out = stdio::pipe()});
        if (await_ready(one.out()) == 0) return false;
        test.say(std::to_string(guard.children().warden().pid));
        return true;
      };
      if (!start()) return 2;
      if (then == after::new_rights && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 3;
      if (then != after::new_rights) {
        ::kill(guard.children().warden().pid, SIGKILL);
        if (!wait_until([&] { return !guard.children().warden_alive(); })) return 4;
      }
      if (then == after::release) guard.release();
      if (then != after::nothing && !start()) return 5;
      const std::size_t left = s.processes().size();
      if (left != (then == after::new_rights ? 2 : 1)) test.say("left: " + std::to_string(left));
      test.say("ready");
      for (;;) ::pause();
    });
    std::vector<pid_t> wardens;
    for (auto line = owner.line(60s); line && *line != "ready"; line = owner.line(60s))
      if (const pid_t pid = std::atoi(line->c_str()); pid > 1) wardens.push_back(pid);
      else FAIL_CHECK(*line);
    CHECK(wardens.size() == (then == after::nothing ? 1 : 2));
    // Nobody has time to do what is left to the next start.
    for (const pid_t each : wardens) ::kill(each, SIGSTOP);
    owner.signal(SIGKILL);
    for (const pid_t each : wardens) ::kill(each, SIGKILL);
    CHECK(owner.wait().signal() == SIGKILL);
    CHECK(next_instance_is_alone(s, name));
    CHECK(wait_until([&] { return s.empty(); }));
    CHECK(place.nothing_below());
  }
}

TEST_CASE("with reach::everything the program is in the group, and is not ended by terminate()") {
  const delegated place(unique_name("cgroup"));
  if (!place.works) return;
  scene s;
  const std::string name = unique_name("every");
  forked owner([&](teller test) {
    if (!place.group.enter()) return 1;
    single_instance_options options{.children = {.grace = 50ms}, .ends = reach::everything};
    single_instance guard = single_instance::acquire(name, options);
    child one = guard.children().spawn(s.words({"daemon", "undying", "ignore", "sleep"}), {.out = stdio::pipe()});
    if (await_ready(one.out()) == 0) return 2;
    const std::string report = mechanism_of(guard.children().terminate());
    if (report != "cgroup, empty") test.say(report);
    if (std::system(("setsid " + s.helper() + " undying ignore cleared sleep >/dev/null &").c_str()) != 0) return 3;
    if (!wait_until([&] { return processes_with(s.helper()).size() == 1; })) return 4;
    test.say("ready");
    ::kill(::getpid(), SIGKILL);
    return 5;
  });
  CHECK(owner.line(60s) == "ready");
  CHECK(owner.wait().signal() == SIGKILL);
  CHECK(s.empty());
  CHECK(place.nothing_below());
}

TEST_CASE("where the kernel would end whoever is born in a group, there is none") {
  const delegated place(unique_name("cgroup"));
  if (!place.works) return;
  REQUIRE((std::ofstream(place.group.path() + "/cgroup.kill") << 1).flush().good());
  forked owner([&](teller test) {
    if (!place.group.enter()) return 1;
    process_group group({.grace = 50ms});
    const exit_status status = group.spawn({"/bin/true"}).wait();
    if (!status.success()) test.say(status.str());
    const termination_report report = group.terminate();
    if (!report.proven_empty) test.say(report.str());
    if ((report.mechanism == containment::cgroup) != (place.group.below().size() == 1)) test.say(report.str());
    return 0;
  });
  for (auto line = owner.line(60s); line; line = owner.line(60s)) FAIL_CHECK(*line);
  CHECK(owner.wait().success());
  CHECK(place.nothing_below());
}

TEST_CASE("a group that somebody has removed is made again for the next child") {
  enum class by { hand, other_namespace };
  for (const by who : {by::hand, by::other_namespace}) {
    for (const bool ended : {false, true}) {  // the kernel has ended it before
      CAPTURE(static_cast<int>(who));
      CAPTURE(ended);
      const delegated place(unique_name("gone"));
      if (!place.works) return;
      const scene s;
      forked owner([&](teller test) {
        if (!place.group.enter()) return 1;
        process_group group({.grace = 50ms});
        if (ended) {
          child first = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
          if (await_ready(first.out()) == 0) return 2;
          group.terminate();
        }
        // The dead are in it for a moment longer than they are seen.
        const auto is_empty = [&] {
          const std::vector<std::string> made = place.group.below();
          return made.size() == 1 &&
                 support::detail::contents(made[0] + "/cgroup.events").find("populated 0") != std::string::npos;
        };
        if (!wait_until(is_empty)) return 3;
        test.say("ready");
        if (!wait_until([&] { return std::filesystem::exists(s / "go"); })) return 4;
        child one = group.spawn(s.words({"daemon", "ignore", "sleep"}), {.out = stdio::pipe()});
        const pid_t pid = await_ready(one.out());
        const std::string where = support::detail::contents("/proc/" + std::to_string(pid) + "/cgroup");
        if (where.find(place.group.place() + "/instance-guard.") == where.npos) test.say("is in " + where);
        const std::string report = mechanism_of(group.terminate());
        if (report != "cgroup, empty") test.say(report);
        return 0;
      });
      REQUIRE(owner.line() == "ready");
      const std::string group = place.group.below().at(0);
      if (who == by::hand) REQUIRE(::rmdir(group.c_str()) == 0);
      if (who == by::other_namespace) {
        const int made = in_own_pid_namespace([&] {
          if (!place.group.enter()) return no_namespace;
          process_group other({.grace = 50ms});
          return other.spawn({"/bin/true"}).wait().success() ? 0 : 1;
        });
        if (made == no_namespace) MESSAGE("skipped: no pid namespace here");
        CHECK((made == 0 || made == no_namespace));
        CHECK(std::filesystem::exists(group) == (made == no_namespace));
      }
      std::ofstream(s / "go").flush();
      for (auto line = owner.line(60s); line; line = owner.line(60s)) FAIL_CHECK(*line);
      CHECK(owner.wait().success());
      CHECK(place.nothing_below());
    }
  }
}

TEST_CASE("a group that is not delegated stays as it is") {
  const service_cgroup place("ig-" + unique_name("own"));
  if (!place.possible()) return;
  forked owner([&](teller test) {
    if (!place.enter()) return 1;
    process_group group({.grace = 50ms});
    if (!place.below().empty()) test.say("made one");
    const std::string report = mechanism_of(group.terminate());
    if (report != "subreaper, empty") test.say(report);
    return 0;
  });
  for (auto line = owner.line(60s); line; line = owner.line(60s)) FAIL_CHECK(*line);
  CHECK(owner.wait().success());
}

TEST_CASE("a record can't point at somebody else's group") {
  const std::string name = unique_name("forged");
  const delegated place(name);
  if (!place.works) return;
  canary before;
  // A process that has ended, in whose name a group could have been made; it started later, by the kernel's clock.
  process_identity dead;
  REQUIRE(wait_until([&] {
    const forked gone([](teller) { return ::pause(); });
    dead = process_identity::of(gone.pid());
    return dead.complete() && dead.start_time > process_identity::of(before.pid()).start_time;
  }));
  const std::string named = "instance-guard." + std::to_string(dead.pid) + "-" + std::to_string(dead.start_time);
  const std::string whole = place.group.path() + "/" + named;
  REQUIRE(std::filesystem::create_directory(whole));
  REQUIRE((std::ofstream(whole + "/cgroup.procs") << before.pid()).flush().good());
  const std::string& service = place.group.place();
  killed_holder record;
  record.process = record.warden = dead;
  record.user = ::geteuid();
  // By its name and owner it could be the dead one's; but who is in it was there before.
  record.control_group = service + "/" + named;
  instance_guard::detail::sweep_control_group(record);
  CHECK(before.alive());
  for (const std::string& other :
       {service, std::string("/"), std::string(), service + "/../" + service + "/" + named}) {
    platform::control_group group;
    CAPTURE(other);
    CHECK(platform::open_control_group(group, other.c_str(), dead.pid, dead.start_time, record.user) < 0);
  }
  platform::control_group group;
  CHECK(platform::open_control_group(group, record.control_group.c_str(), dead.pid, dead.start_time, record.user + 1) ==
        -EPERM);
  REQUIRE((std::ofstream(place.group.path() + "/cgroup.procs") << before.pid()).flush().good());
  instance_guard::detail::sweep_control_group(record);  // empty now
  CHECK(place.nothing_below());
}
