// audit and real checkouts: one that moved under a process, and one that would execute something.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "support/own_pid_namespace.hpp"
#include "support/scene.hpp"
#include "support/terminal.hpp"
#include "support/tool_result.hpp"
#include "support/wait_until.hpp"

using namespace support;
namespace fs = std::filesystem;

namespace {

/// Runs a script of the shell with git's surroundings; what it said, and true if all of it went well.
struct shell_result {
  bool good = false;
  std::string said = {};
};
shell_result shell(const scene& s, const std::string& script) {
  program run = s.start({"sh", "-c",
                         "set -e; unset GIT_DIR GIT_WORK_TREE; export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 "
                         "GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; " +
                             script},
                        {.merge_err = true});
  shell_result result;
  result.said = run.read_all();
  const auto status = run.wait();
  result.good = status && status->exited() && status->code() == 0;
  return result;
}

/// An origin with commits, and a clone of it in which a program runs its script. A reflog has the committer's date:
/// cloned an hour ago, and pulled in an hour, so that no start of a process is near one of them.
class moved_checkout {
 public:
  explicit moved_checkout(const scene& s) : s_(s) {}

  bool make(const std::string& clone = "git clone -q origin work") const {
    return shell(s_, dated(now() - 3600) +
                         "git init -q origin -b main; cd origin; echo 0 > main.py; git add .; git commit -q -m 0; "
                         "cd ..; " +
                         clone + "; touch -d '1 hour ago' work/main.py")
        .good;
  }
  /// Stands for Python with the script of the checkout.
  program start() const {
    const std::string python = s_ / "python3";
    fs::copy_file(INSTANCE_GUARD_CENSUS_ACTOR, python);
    program result = s_.start({python, s_ / "work/main.py"});
    // Until then it is a copy of this test.
    const std::string exe = "/proc/" + std::to_string(result.pid()) + "/exe";
    std::error_code ec;
    CHECK(wait_until([&] { return fs::read_symlink(exe, ec).filename() == "python3"; }));
    return result;
  }
  bool pull_twelve(long at = now() + 3600, const std::string& pull = "git pull -q") const {
    return shell(s_, dated(at) +
                         "cd origin; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i > main.py; "
                         "git commit -q -a -m $i; done; cd ../work; " +
                         pull)
        .good;
  }
  static long now() { return static_cast<long>(::time(nullptr)); }

 private:
  static std::string dated(long at) { return "export GIT_COMMITTER_DATE='@" + std::to_string(at) + " +0000'; "; }
  const scene& s_;
};

bool has_git(const scene& s) {
  if (shell(s, "git --version").good) return true;
  MESSAGE("skipped: there is no git");
  return false;
}

fs::path commit_counter() { return fs::path(INSTANCE_GUARD_TOOL).parent_path() / "instance-guard-commits"; }

bool can_count() { return ::access(commit_counter().c_str(), X_OK) == 0; }

/// In the scene's directory; where there is no pid namespace, no part of it runs.
template <class Part>
void alone_in(const scene& s, Part part) {
  const int code = in_own_pid_namespace([&] { return ::chdir((s / ".").c_str()) == 0 ? part() : 70; });
  if (code == no_namespace) MESSAGE("skipped: no pid namespace here");
  else CHECK(code == 0);
}

int fail(int number, const tool_result& got) {
  std::fprintf(stderr, "part %d: exit %d\n%s\n", number, got.code, got.out.c_str());
  return number;
}

/// Everything in a repository by which git is made to execute something: each writes into the canary.
std::string poison(const std::string& canary, const std::string& trap) {
  return "printf '#!/bin/sh\\necho \"$0 $*\" >> " + canary + "\\nexit 1\\n' > " + trap + "; chmod 755 " + trap +
         "; cd work; for hook in post-checkout post-index-change pre-auto-gc reference-transaction fsmonitor-watchman "
         "post-rewrite pre-commit; do cp " +
         trap +
         " .git/hooks/$hook; done; "
         "for key in core.fsmonitor core.pager core.editor core.sshCommand core.askPass core.alternateRefsCommand "
         "diff.external diff.x.command diff.x.textconv filter.x.clean filter.x.smudge filter.x.process "
         "merge.x.driver credential.helper gpg.program uploadpack.packObjectsHook; do git config $key " +
         trap + "; done; git config core.hooksPath " + trap + ".d; mkdir " + trap + ".d; cp .git/hooks/* " + trap +
         ".d/; "
         "git config filter.x.required true; git config alias.rev-list \"!" +
         trap +
         "\"; "
         "echo '* filter=x diff=x merge=x' > .gitattributes; cp .gitattributes .git/info/attributes; "
         "printf '[core]\\n\\tfsmonitor = " +
         trap +
         "\\n' > .git/more; git config include.path more; "
         "git config remote.origin.url 'ext::" +
         trap + "'; git config remote.origin.uploadpack " + trap +
         "; git config extensions.partialClone origin; git config remote.origin.promisor true; touch -d 2001-01-01 "
         "main.py";
}

}  // namespace

TEST_CASE("a checkout that moved twelve commits in one pull: the tool says so, with both commits") {
  const scene s;
  if (!has_git(s)) return;
  alone_in(s, [&] {
    const moved_checkout repository(s);
    if (!repository.make()) return 1;
    const program bot = repository.start();
    if (const tool_result before = run_tool(s, {"audit", "--kind", "stale", "--min-age", "0"}); before.code != 0)
      return fail(2, before);
    if (!repository.pull_twelve()) return 3;
    const shell_result from = shell(s, "git -C work rev-parse HEAD@{1} HEAD");
    std::vector<std::string> heads = lines_of(from.said);
    if (!from.good || heads.size() != 2) return 4;
    for (std::string& each : heads) each.resize(7);
    const tool_result got = run_tool(s, {"audit", "--kind", "stale", "--min-age", "0"});
    if (got.code != 1 || !got.says("WARNING  stale") || !got.says("work/main.py") || !got.says(heads[0]) ||
        !got.says(heads[1]))
      return fail(5, got);
    if (!fits(got.out)) return fail(6, got);
    const auto document = nlohmann::json::parse(run_tool(s, {"audit", "--kind", "stale", "--json"}).out);
    const std::string why = document["ghosts"][0]["why"];
    const std::string headline = document["ghosts"][0]["headline"];
    if (headline.find(" runs code of 20") == std::string::npos) return 8;
    const std::string expected = "moved " + heads[0] + " -> " + heads[1] + " in 1 update" +
                                 (can_count() ? " (12 commits) since it started" : " since it started");
    if (why.find(expected) == std::string::npos) {
      std::fprintf(stderr, "%s\n%s\n", why.c_str(), expected.c_str());
      return 7;
    }
    return 0;
  });
}

TEST_CASE(
    "a shallow checkout that moved: as many commits as there are, or no number, and no command that gets it wrong") {
  const std::string shallow = "git clone -q --depth 1 \"file://$PWD/origin\" work";
  const auto check = [&](const std::string& pull, const std::string& expected) {
    const scene s;
    if (!has_git(s)) return;
    alone_in(s, [&] {
      const moved_checkout repository(s);
      if (!repository.make(shallow)) return 1;
      const program bot = repository.start();
      // What a reset wrote has the time of the files, not that of git: seconds behind the start.
      const long begun = moved_checkout::now();
      if (!wait_until([&] { return moved_checkout::now() > begun + 2; })) return 5;
      if (!repository.pull_twelve(moved_checkout::now(), pull)) return 2;
      const tool_result got = run_tool(s, {"audit", "--kind", "stale", "--json"});
      const auto document = nlohmann::json::parse(got.out, nullptr, false);
      if (document.is_discarded() || document["ghosts"].size() != 1) return fail(3, got);
      const std::string why = document["ghosts"][0]["why"];
      const bool good = why.find("in 1 update" + expected + " since it started, the newest") != std::string::npos &&
                        why.find("rev-list") == std::string::npos;
      return good ? 0 : fail(4, got);
    });
  };
  SUBCASE("pulled") { check("git pull -q", can_count() ? " (12 commits)" : ""); }
  SUBCASE("to where its history begins anew") { check("git fetch -q --depth 1; git reset -q --hard origin/main", ""); }
}

TEST_CASE("commits are counted as git counts them; in a shallow history only where nothing is missing") {
  const scene s;
  if (!has_git(s) || !can_count()) return;
  const auto counted = [&](const std::string& where, const std::string& from, const std::string& to) {
    return shell(s, "cd '" + (s / where) + "'; " + commit_counter().string() + " \"$PWD\" $(git rev-parse " + from +
                        " " + to + ")")
        .said;
  };
  // 3 commits; a branch of 5 from the first of them is merged; 2 more.
  const shell_result made = shell(
      s, "cd '" + (s / ".") +
             "'; git init -q -b main origin; cd origin; "
             "commits() { for i in $(seq $1); do git commit -q --allow-empty -m $i; done; }; commits 3; git tag old; "
             "cd ..; git clone -q --depth 1 \"file://$PWD/origin\" shallow; cd origin; "
             "git checkout -q -b side HEAD~2; commits 5; git checkout -q main; git merge -q --no-edit side; commits 2; "
             "cd ..; git clone -q origin whole; cd whole; git worktree add -q ../tree; cd ../shallow; git pull -q; "
             "git tag -f old HEAD~3; git worktree add -q ../leaf; git -C ../origin commit -q --allow-empty -m last; "
             "git pull -q");
  REQUIRE_MESSAGE(made.good, made.said);
  for (const char* where : {"whole", "tree"}) {
    CHECK(counted(where, "old", "HEAD") == "8\n");
    CHECK(counted(where, "HEAD", "old") == "0\n");
    CHECK(counted(where, "HEAD~2", "HEAD") == "2\n");
  }
  for (const char* where : {"shallow", "leaf"}) {
    CHECK(counted(where, "main~3", "main") == "3\n");
    CHECK(counted(where, "main", "main") == "0\n");
    // Of what the other branch has nobody knows here how much was there before.
    CHECK(counted(where, "old", "main") == "");
    CHECK(counted(where, "main", "old") == "");
  }
}

TEST_CASE("a duplicate in a checkout: which commit each runs") {
  const scene s;
  if (!has_git(s)) return;
  alone_in(s, [&] {
    const moved_checkout repository(s);
    if (!repository.make()) return 1;
    // Left over from before the pull.
    const program first = repository.start();
    program between = s.start(s.words({"daemon", "exec", s / "python3", s / "work/main.py"}));
    between.wait();
    // Seconds behind the start of the first, and before that of the second.
    const long between_them = moved_checkout::now() + 3;
    if (!repository.pull_twelve(between_them)) return 2;
    std::vector<std::string> heads = lines_of(shell(s, "git -C work rev-parse HEAD@{1} HEAD").said);
    if (heads.size() != 2) return 3;
    for (std::string& each : heads) each.resize(7);
    if (!wait_until([&] { return moved_checkout::now() > between_them; })) return 5;
    terminal front = terminal::with_shell({s.mark()});
    front.type(s / "python3" + " " + (s / "work/main.py") + "\n");
    tool_result got;
    const bool told = wait_until([&] {
      got = run_tool(s, {"audit", "--min-age", "0"});
      return got.says("duplicate");
    });
    if (!told || !got.says("HEAD " + heads[1]) || !got.says("HEAD was " + heads[0]) || !fits(got.out))
      return fail(4, got);
    return 0;
  });
}

TEST_CASE("nothing is executed for a hostile checkout, and it is told all the same") {
  const scene s;
  if (!has_git(s)) return;
  alone_in(s, [&] {
    const moved_checkout repository(s);
    if (!repository.make()) return 1;
    const program bot = repository.start();
    if (!repository.pull_twelve()) return 2;
    const std::string canary = s / "canary", trap = s / "trap";
    if (const shell_result done = shell(s, poison(canary, trap)); !done.good) {
      std::fprintf(stderr, "%s\n", done.said.c_str());
      return 3;
    }
    // The trap works: git itself falls into it.
    shell(s, "git -C work status");
    if (!fs::exists(canary)) return 4;
    fs::remove(canary);
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"audit", "--min-age", "0"}, {"audit", "--min-age", "0", "--json", "--all-users"}}) {
      const tool_result got = run_tool(s, words);
      if (got.code == 0 || !got.says("moved ")) return fail(5, got);
      if (fs::exists(canary)) return fail(6, got);
    }
    return 0;
  });
}
