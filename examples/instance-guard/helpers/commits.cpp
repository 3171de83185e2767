// instance-guard-commits DIRECTORY FROM TO: how many commits TO has that FROM has not.
//
// By libgit2, which executes nothing and runs no hooks. The repository is not trusted: one of
// another user is refused (libgit2's owner check), no configuration but its own is read, memory and
// time are limited. Prints a number; exit code 1 and nothing if it can't be told, as where the history
// that a shallow clone has is not enough to tell.
#include <git2.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <string>

namespace {

template <class T>
using owned = std::unique_ptr<T, void (*)(T*)>;

void limit_myself() {
  const rlimit seconds = {10, 10};
  const rlimit memory = {rlim_t{4} << 30, rlim_t{4} << 30};
  const rlimit none = {0, 0};
  ::setrlimit(RLIMIT_CPU, &seconds);
  ::setrlimit(RLIMIT_AS, &memory);
  ::setrlimit(RLIMIT_CORE, &none);
}

/// "git clone --depth": the history ends somewhere. Also of a working tree of such a repository,
/// which git_repository_is_shallow() of libgit2 1.5 does not see.
bool is_shallow(git_repository* repository) {
  const std::string file = std::string(git_repository_commondir(repository)) + "/shallow";
  struct stat facts = {};
  return ::lstat(file.c_str(), &facts) == 0;
}

/// The commits from one to another where each has one parent; -1: they are not such a row. What lies
/// behind `from` does not matter to it; wherever histories join it does, and may be missing.
int count_row(git_repository* repository, const git_oid& from, git_oid at, int most) {
  int found = 0;
  for (; found <= most && git_oid_equal(&at, &from) == 0; ++found) {
    git_commit* commit = nullptr;
    if (git_commit_lookup(&commit, repository, &at) < 0) return -1;
    const owned<git_commit> holds_commit(commit, git_commit_free);
    if (git_commit_parentcount(commit) != 1) return -1;
    at = *git_commit_parent_id(commit, 0);
  }
  return found;
}

int count_all(git_repository* repository, const git_oid& from, const git_oid& to, int most) {
  git_revwalk* walk = nullptr;
  if (git_revwalk_new(&walk, repository) < 0) return -1;
  const owned<git_revwalk> holds_walk(walk, git_revwalk_free);
  if (git_revwalk_push(walk, &to) < 0 || git_revwalk_hide(walk, &from) < 0) return -1;
  int found = 0;
  git_oid each;
  int result = 0;
  while (found <= most && (result = git_revwalk_next(&each, walk)) == 0) ++found;
  return result == GIT_ITEROVER ? found : -1;
}

}  // namespace

int main(int count, char** arguments) {
  constexpr int most_commits = 1'000'000;
  if (count != 4) return 2;
  limit_myself();
  if (git_libgit2_init() < 0) return 1;
  for (const git_config_level_t level :
       {GIT_CONFIG_LEVEL_SYSTEM, GIT_CONFIG_LEVEL_XDG, GIT_CONFIG_LEVEL_GLOBAL, GIT_CONFIG_LEVEL_PROGRAMDATA})
    git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, level, "");
  git_repository* repository = nullptr;
  if (git_repository_open_ext(&repository, arguments[1], GIT_REPOSITORY_OPEN_NO_SEARCH, nullptr) < 0) return 1;
  const owned<git_repository> holds_repository(repository, git_repository_free);
  git_oid from, to;
  if (git_oid_fromstr(&from, arguments[2]) < 0 || git_oid_fromstr(&to, arguments[3]) < 0) return 1;
  const int found = is_shallow(repository) ? count_row(repository, from, to, most_commits)
                                           : count_all(repository, from, to, most_commits);
  if (found < 0 || found > most_commits) return 1;
  std::printf("%d\n", found);
  return 0;
}
