// What git itself writes: which of its commands change the files of a checkout, by the reflog alone.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <instance_guard/detail/census_git.hpp>
#include <instance_guard/detail/census_stale.hpp>
#include <optional>
#include <string>

#include "support/program.hpp"
#include "support/temporary_directory.hpp"

using namespace instance_guard::detail;
namespace fs = std::filesystem;
using reading = git_move::reading;

namespace {

/// Directories "origin", with commits, and "work", a clone. Nothing is waited for: a reflog has the committer's date,
/// which is an hour ago for what was before a start, an hour from now for what came after. Files have today's.
class repositories {
 public:
  static constexpr long hour = 3600;

  explicit repositories(const std::string& clone = "git clone -q origin work") {
    run("git init -q -b main origin; cd origin; for i in 1 2 3; do echo $i > file$i; git add .; git commit -q -m $i; "
        "done; cd ..; " +
            clone,
        -2 * hour);
  }
  /// What a script of the shell said, in the directory of all; it must go well.
  std::string run(const std::string& script, long at = 0) const {
    const std::string date = "@" + std::to_string(::time(nullptr) + at) + " +0000";
    const std::string all =
        "set -e; cd '" + directory_.path().string() +
        "'; unset GIT_DIR GIT_WORK_TREE; export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_EDITOR=true "
        "GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_COMMITTER_DATE='" +
        date + "' GIT_AUTHOR_DATE='" + date + "'; " + script;
    support::program shell({"sh", "-c", all}, {.merge_err = true});
    std::string said = shell.read_all();
    const auto status = shell.wait();
    CHECK_MESSAGE((status && status->exited() && status->code() == 0), script << "\n" << said);
    while (!said.empty() && said.back() == '\n') said.pop_back();
    return said;
  }
  std::string commit(const std::string& revision, const std::string& where = "work") const {
    return run("git -C " + where + " rev-parse " + revision);
  }
  git_checkout find(const std::string& where = "work") const {
    return find_checkout(fs::canonical(directory_ / where).string() + "/file1", ::geteuid(), slow_);
  }
  /// Since a start, `seconds` from now.
  git_move moved(const std::string& where = "work", long seconds = -hour) const {
    return moved_since(find(where), std::chrono::system_clock::now() + std::chrono::seconds(seconds), ::geteuid());
  }
  std::string path(const std::string& name) const { return directory_ / name; }

 private:
  support::temporary_directory directory_ = {};
  slow_places slow_ = {};
};

bool has_git() {
  support::program run({"sh", "-c", "git --version"}, {.merge_err = true});
  run.read_all();
  const auto status = run.wait();
  if (status && status->exited() && status->code() == 0) return true;
  MESSAGE("skipped: there is no git");
  return false;
}

const std::string next_in_origin = "cd origin; echo 4 > file4; git add .; git commit -q -m 4; cd ..; ";

/// One update, from the commit before it to that of now.
void check_one_update(const repositories& r, const std::string& where, const std::string& before) {
  const git_move found = r.moved(where);
  REQUIRE(found.how == reading::moved);
  CHECK(found.updates == 1);
  CHECK(found.from == before);
  CHECK(found.to == r.commit("HEAD", where));
  CHECK(is_of_checkout(r.find(where), r.find(where).root + "/file1", found.to, ::geteuid()) == is_tracked::yes);
}

}  // namespace

TEST_CASE("a pull is found in a clone, a shallow one, with packed refs, on a detached HEAD") {
  if (!has_git()) return;
  std::string clone = "git clone -q origin work", before = "true", update = "git pull -q";
  SUBCASE("clone") {}
  SUBCASE("shallow") { clone = "git clone -q --depth 1 \"file://$PWD/origin\" work"; }
  SUBCASE("shallow, to where another depth ends") {
    clone = "git clone -q --depth 1 \"file://$PWD/origin\" work";
    update = "git fetch -q --depth 1; git merge -q --allow-unrelated-histories -m x origin/main";
  }
  SUBCASE("packed") {
    before = "git pack-refs --all";
    update = "git pull -q; git pack-refs --all; git gc -q";
  }
  SUBCASE("detached") {
    before = "git checkout -q --detach";
    update = "git fetch -q; git checkout -q origin/main";
  }
  SUBCASE("in another format") { before = "git update-index --index-version 4; git config core.trustctime false"; }
  SUBCASE("rebase") {
    before = "echo x > mine; git add .; git commit -q -m mine; echo y > mine; git commit -q -a -m more";
    update = "git fetch -q; git rebase -q origin/main";
  }
  SUBCASE("pull --rebase") {
    before = "echo x > mine; git add .; git commit -q -m mine; echo y > mine; git commit -q -a -m more";
    update = "git pull -q --rebase";
  }
  SUBCASE("renamed, too") { update = "git branch -m main trunk; git pull -q origin main"; }
  SUBCASE("a new branch, too") { update = "git checkout -q -b next; git pull -q origin main"; }
  const repositories r(clone);
  r.run("cd work; " + before, -2 * repositories::hour);
  const std::string first = r.commit("HEAD");
  CHECK(r.moved().how == reading::nothing);
  CHECK(r.moved().to == first);
  r.run(next_in_origin + "cd work; " + update);
  check_one_update(r, "work", first);
}

TEST_CASE("a working tree and a submodule move by themselves, each with a .git that names another place") {
  if (!has_git()) return;
  const repositories r;
  SUBCASE("working tree") {
    r.run("cd work; git worktree add -q ../tree -b tree", -2 * repositories::hour);
    const std::string first = r.commit("HEAD");
    r.run(next_in_origin + "cd tree; git pull -q origin main");
    check_one_update(r, "tree", first);
    CHECK(repository_of(r.find("tree"), ::geteuid(), slow_places()) ==
          repository_of(r.find(), ::geteuid(), slow_places()));
    CHECK(r.moved().how == reading::nothing);
  }
  SUBCASE("submodule") {
    r.run(
        "git init -q -b main outer; cd outer; git -c protocol.file.allow=always submodule --quiet add "
        "\"$PWD/../origin\" sub; "
        "git commit -q -m sub",
        -2 * repositories::hour);
    REQUIRE(fs::is_regular_file(r.path("outer/sub/.git")));
    const std::string first = r.commit("HEAD", "outer/sub");
    r.run(next_in_origin + "cd outer; git -c protocol.file.allow=always submodule --quiet update --remote");
    check_one_update(r, "outer/sub", first);
  }
}

TEST_CASE("a shallow history is known as such, in each of its working trees") {
  if (!has_git()) return;
  const repositories r("git clone -q --depth 1 \"file://$PWD/origin\" work");
  r.run("cd work; git worktree add -q ../tree -b tree");
  CHECK(is_shallow(r.find()));
  CHECK(is_shallow(r.find("tree")));
  CHECK(!is_shallow(r.find("origin")));
  // Nobody is told to count there: git would do it wrongly, too.
  stale_code code;
  code.checkout = r.find();
  code.git = {reading::moved, std::string(40, 'a'), std::string(40, 'b'), 1, false, {}};
  const auto now = std::chrono::system_clock::now();
  CHECK(git_text(code, {}, now).find("rev-list") == std::string::npos);
  CHECK(git_text(code, 12, now).find("(12 commits)") != std::string::npos);
  code.checkout = r.find("origin");
  CHECK(git_text(code, {}, now).find("rev-list") != std::string::npos);
}

TEST_CASE("where the reflog does not tell what was there at the start, nothing is said") {
  if (!has_git()) return;
  const repositories r;
  const auto check_silent = [&](const std::string& where) {
    CHECK(r.moved(where).how == reading::nothing);
    CHECK(r.moved(where).to.empty());
  };
  SUBCASE("no commit yet") {
    r.run("git init -q -b main new", -2 * repositories::hour);
    check_silent("new");
    r.run("cd new; git pull -q ../origin main; echo x > y; git add .; git commit -q -m y; git checkout -q HEAD~1");
    check_silent("new");
  }
  SUBCASE("no commit any more") {
    r.run("cd work; git checkout -q --orphan other; git commit -q -m other; git checkout -q main~1");
    check_silent("work");
  }
  SUBCASE("a branch that is gone") {
    r.run("cd work; git update-ref -d refs/heads/main");
    check_silent("work");
  }
  SUBCASE("no reflog") {
    r.run(
        "git -c core.logAllRefUpdates=false clone -q origin plain; cd plain; git config core.logAllRefUpdates false; "
        "git reset -q --hard HEAD~1");
    check_silent("plain");
  }
  SUBCASE("an expired one") {
    r.run("cd work; git checkout -q HEAD~1; git reflog expire --expire=now --all");
    check_silent("work");
  }
  SUBCASE("one of which the lines about the start have expired") {
    r.run("cd work; git checkout -q HEAD~1", -1800);
    r.run("cd work; git checkout -q main~2");
    CHECK(r.moved().how == reading::moved);
    r.run("cd work; git reflog delete HEAD@{1}");
    check_silent("work");
  }
}

TEST_CASE("what leaves the files alone does not make them old: commit, checkout -b, reset --soft and --mixed") {
  if (!has_git()) return;
  const repositories r;
  // A second after everything was written, and the commands an hour later.
  r.run("cd work; echo x > mine; git add .; git commit -q -m mine");
  std::string script, then;
  SUBCASE("commit") { script = "git commit -q --allow-empty -m x; git commit -q --amend --allow-empty -m y"; }
  SUBCASE("checkout -b") { script = "git checkout -q -b next; git branch -m next last; git checkout -q --detach"; }
  SUBCASE("reset --soft") { script = "git reset -q --soft HEAD~2"; }
  SUBCASE("reset --mixed") { script = "git reset -q HEAD~2"; }
  SUBCASE("reset --soft, commit") { script = "git reset -q --soft HEAD~2; git commit -q -m both"; }
  SUBCASE("reset --soft, commit, seen by git") {
    script = "git reset -q --soft HEAD~2; git commit -q -m both; git status >/dev/null; git update-index -q --refresh";
  }
  r.run("cd work; " + script, repositories::hour);
  const git_move found = r.moved();
  CHECK(found.how == reading::nothing);
  // What runs is not of a commit that HEAD was merely set to.
  CHECK(found.to == (script.find("reset") == std::string::npos ? r.commit("HEAD") : ""));
  // Nor is it counted where another one did move the files.
  r.run("cd work; git stash -q -u; " + std::string("git checkout -q origin/main~2"), 2 * repositories::hour);
  CHECK(r.moved().how == reading::moved);
  CHECK(r.moved().updates == 1);
}

TEST_CASE("reset --hard is an update, also where the times of files were set back; a tree without index is believed") {
  if (!has_git()) return;
  const repositories r;
  const std::string first = r.commit("HEAD");
  r.run(next_in_origin + "cd origin; echo 5 > file1; git commit -q -a -m 5");
  SUBCASE("to what was fetched") { r.run("cd work; git fetch -q; git reset -q --hard origin/main"); }
  SUBCASE("times set back") {
    r.run(
        "cd work; git fetch -q; git reset -q --hard origin/main; touch -d 2001-01-01 *; git update-index -q --refresh");
  }
  SUBCASE("no index") { r.run("cd work; git fetch -q; git reset -q --soft origin/main; rm .git/index"); }
  const git_move found = r.moved();
  REQUIRE(found.how == reading::moved);
  CHECK(found.updates == 1);
  CHECK(found.from == first);
}

TEST_CASE("a merge that was committed by hand has changed files, if they are younger than the start") {
  if (!has_git()) return;
  const repositories r;
  r.run("cd work; echo mine > file1; git commit -q -a -m mine", -2 * repositories::hour);
  const std::string first = r.commit("HEAD");
  r.run(
      "cd origin; echo theirs > file1; git commit -q -a -m theirs; cd ../work; "
      "! git pull -q --no-rebase >/dev/null 2>&1; echo both > file1");
  r.run("cd work; git commit -q -a -m merged", 2 * repositories::hour);
  check_one_update(r, "work", first);
  // Started between the merge and its commit.
  CHECK(r.moved("work", repositories::hour).how == reading::nothing);
}
