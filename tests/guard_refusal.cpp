// What a start says that does not get the name: which path is at fault and what helps, or whom it met, and what that
// one runs.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cctype>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <functional>
#include <string>

#include "support/deny_system_calls.hpp"
#include "support/owner.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

struct setting {
  scene s{{INSTANCE_GUARD_TEST_OWNER}};
  std::string name = unique_name("refusal");
  std::string directory = make_directory(s / "locks");

  static std::string make_directory(const std::string& path) {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    return path;
  }
  std::vector<std::string> words(const std::string& executable) const {
    return {executable, "directory=" + directory, "guard-or-exit=" + name, "pause="};
  }
};

}  // namespace

TEST_CASE("a system that is out of locks: path, reason and cure, exit 73, and the name is as it was") {
  const struct {
    const char* what;
    std::function<bool()> deny;
  } cases[] = {{"the lock itself", [] { return deny_system_calls({SYS_flock}, ENOLCK); }},
               {"the mark for those who ask", [] { return deny_system_call_with(SYS_fcntl, F_OFD_SETLK, ENOLCK, 1); }}};
  for (const auto& each : cases) {
    CAPTURE(each.what);
    setting t;
    const std::string file = t.directory + "/" + t.name + ".lock";
    program refused =
        t.s.start(t.words(t.s.path_of(INSTANCE_GUARD_TEST_OWNER)), {.before_exec = each.deny, .merge_err = true});
    const std::string said = refused.read_all();
    CAPTURE(said);
    CHECK(said.starts_with(t.name + ": cannot start: " + file + " cannot be locked: "));
    CHECK(said.find(std::make_error_code(std::errc::no_lock_available).message() + " (exit 73); cure: ") != said.npos);
    CHECK(said.find('\n') == said.size() - 1);
    CHECK(said.find("lock_options.directory") != said.npos);
    const auto status = refused.wait();
    REQUIRE(status);
    CHECK(status->code() == 73);
    CHECK(t.s.empty());
    owner next(t.s, {.arguments = {"directory=" + t.directory, "guard=" + t.name, "end=return"}});
    const auto line = next.process().read_until("acquired");
    REQUIRE(line);
    CHECK(line->find(" recovered=0 ") != line->npos);
    CHECK(next.process().wait()->code() == 21);
  }
}

TEST_CASE("a refusal says that the holder's code was replaced, or is gone, in a line and on a terminal") {
  for (const std::string how : {"as it was", "replaced", "deleted"}) {
    CAPTURE(how);
    setting t;
    const std::string executable = t.s.path_of(INSTANCE_GUARD_TEST_OWNER), old = t.s / "bot";
    std::filesystem::copy_file(executable, old);
    program holder = t.s.start(t.words(old));
    REQUIRE(holder.read_until("acquired"));
    if (how == "replaced") {
      std::filesystem::copy_file(executable, old + ".new");
      std::filesystem::rename(old + ".new", old);
    } else if (how == "deleted") {
      std::filesystem::remove(old);
    }
    const bool changed = how != "as it was";

    program refused = t.s.start(t.words(executable), {.merge_err = true});
    const std::string line = refused.read_all();
    CAPTURE(line);
    CHECK(line.starts_with(t.name + ": already running: pid " + std::to_string(holder.pid()) + ", "));
    CHECK((line.find(", its code was replaced ") != line.npos) == changed);
    CHECK(line.find('\n') == line.size() - 1);
    CHECK(refused.wait()->code() == 75);

    terminal shown(t.words(executable), {t.s.mark()});
    CHECK(shown.see("(stops the holder)"));
    const std::string text = shown.skipped();
    CAPTURE(text);
    CHECK(text.find("pid " + std::to_string(holder.pid()) + " on ") != text.npos);
    CHECK((text.find("  code     REPLACED ") != text.npos) == changed);

    holder.signal(SIGTERM);
    CHECK(holder.wait()->signal() == SIGTERM);
  }
}

TEST_CASE("a holder whose file was removed is named all the same, without an age that nobody knows") {
  setting t;
  const std::string executable = t.s.path_of(INSTANCE_GUARD_TEST_OWNER);
  program holder = t.s.start(t.words(executable));
  REQUIRE(holder.read_until("acquired"));
  REQUIRE(std::filesystem::remove(t.directory + "/" + t.name + ".lock"));
  const std::string pid = "pid " + std::to_string(holder.pid());

  program refused = t.s.start(t.words(executable), {.merge_err = true});
  const std::string line = refused.read_all();
  CAPTURE(line);
  CHECK(line.starts_with(t.name + ": already running: " + pid + ", started from "));
  CHECK(line.ends_with(": exit 75\n"));
  CHECK(refused.wait()->code() == 75);

  terminal shown(t.words(executable), {t.s.mark()});
  CHECK(shown.see("(stops the holder)"));
  const std::string text = shown.skipped();
  CAPTURE(text);
  CHECK(text.find(pid + " on ") != text.npos);
  CHECK(text.find(", for ") == text.npos);

  holder.signal(SIGTERM);
  CHECK(holder.wait()->signal() == SIGTERM);
}

TEST_CASE("of several names the refusal names the one that is held; its case is no other name") {
  setting t;
  const std::string executable = t.s.path_of(INSTANCE_GUARD_TEST_OWNER), other = unique_name("refusal");
  program holder = t.s.start(t.words(executable));
  REQUIRE(holder.read_until("acquired"));
  const std::string pid = "pid " + std::to_string(holder.pid());
  program both =
      t.s.start({executable, "directory=" + t.directory, "also=" + t.name, "guard-or-exit=" + other, "pause="},
                {.merge_err = true});
  CHECK(both.read_all().starts_with(other + ": " + t.name + " is held already: " + pid + ", "));
  CHECK(both.wait()->code() == 75);
  std::string upper = t.name;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  REQUIRE(upper != t.name);
  program same =
      t.s.start({executable, "directory=" + t.directory, "guard-or-exit=" + upper, "pause="}, {.merge_err = true});
  CHECK(same.read_all().starts_with(upper + ": already running: " + pid + ", "));
  CHECK(same.wait()->code() == 75);
  holder.signal(SIGTERM);
  CHECK(holder.wait());
}

TEST_CASE("on a terminal a refusal tells that the holder's is closed") {
  setting t;
  const std::string executable = t.s.path_of(INSTANCE_GUARD_TEST_OWNER);
  for (const bool closed : {false, true}) {
    CAPTURE(closed);
    terminal place({"sh", "-c", "trap '' HUP; exec \"$@\"", "sh", executable, "directory=" + t.directory,
                    "guard-or-exit=" + t.name, "pause="},
                   {t.s.mark()});
    REQUIRE(place.see("acquired"));
    if (closed) place.close();
    terminal shown(t.words(executable), {t.s.mark()});
    CHECK(shown.see("(stops the holder)"));
    const std::string text = shown.skipped();
    CAPTURE(text);
    CHECK((text.find(", which is closed: nobody supervises it\r\n") != text.npos) == closed);
    ::kill(place.leader(), SIGTERM);
    CHECK(wait_until([&] { return t.s.empty(); }));
  }
}

TEST_CASE("who waits on a terminal is told for how many, of whom, and then how the last run ended") {
  setting t;
  owner_options options{.arguments = {"grace=1500", "directory=" + t.directory, "guard=" + t.name}, .ready = 2};
  options.arguments.insert(options.arguments.end(), {"child=ignore sleep", "child=daemon ignore sleep", "pause="});
  owner holder(t.s, options);
  REQUIRE(holder.complete());
  const std::string pid = std::to_string(holder.process().pid());
  holder.process().signal(SIGKILL);
  REQUIRE(holder.process().wait());
  terminal next(t.words(t.s.path_of(INSTANCE_GUARD_TEST_OWNER)), {t.s.mark()});
  CHECK(next.see(t.name + ": waiting for 2 children of pid " + pid + ", which is dead, to end, at most 12s"));
  CHECK(next.see(t.name + ": started; the previous run (pid " + pid));
  CHECK(next.see("did not end cleanly"));
  next.close();
  CHECK(wait_until([&] { return t.s.empty(); }));
}
