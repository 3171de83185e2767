// Programs whose code is replaced while they run, and changes that are none.
#include <fcntl.h>
#include <sys/mman.h>

#include <ctime>

#include "stage.hpp"

namespace census_host {
namespace {

std::string hash(char digit) { return std::string(40, digit); }

/// A line of a reflog, some seconds from now.
std::string reflog(char from, char to, long seconds, const std::string& what) {
  return hash(from) + " " + hash(to) + " Knox <knox@example.org> " + std::to_string(::time(nullptr) + seconds) +
         " +0200\t" + what + "\n";
}

/// An index with main.py alone, which was written at another time.
std::string index_of(long seconds) {
  const auto number = [](long value) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xff);
    return text;
  };
  const std::string at = number(::time(nullptr) + seconds) + number(0);
  return "DIRC" + number(2) + number(1) + at + at + std::string(44, '\1') + std::string("\0\7main.py\0\0\0", 12) +
         std::string(20, 'h');
}

void append(const std::string& file, const std::string& text) { std::ofstream(file, std::ios::app) << text; }

actor service(stage& s, const std::string& label, const std::string& truth, std::vector<std::string> words,
              const std::string& directory = "") {
  words.insert(words.begin(), "python3");
  return {.label = label,
          .truth = truth,
          .arguments = std::move(words),
          .executable = s.program("usr/bin/python3.11"),
          .directory = directory};
}

void stage_files(stage& s) {
  const std::string replaced = s.program("opt/replaced/trader");
  s.start_managed("replaced.service", [&] {
    s.become({.label = "stale.binary_replaced",
              .truth = "stale",
              .arguments = {"a title of its own"},
              .executable = replaced});
  });
  s.later([&s, replaced] { s.replace(replaced); });
  const std::string deleted = s.program("opt/deleted/trader");
  s.start_managed("deleted.service",
                  [&] { s.become({.label = "stale.binary_deleted", .truth = "stale", .arguments = {deleted}}); });
  s.later([deleted] { fs::remove(deleted); });
  const std::string aside = s.program("opt/aside/trader");
  s.start_managed("aside.service",
                  [&] { s.become({.label = "stale.binary_moved_aside", .truth = "stale", .arguments = {aside}}); });
  s.later([&s, aside] {
    fs::rename(aside, aside + ".old");
    s.program("opt/aside/trader");
  });
  const std::string script = s.script("srv/newer/job.py");
  s.start_managed("newer.service", [&] { s.become(service(s, "stale.script_newer", "stale", {script})); });
  s.later([script] { append(script, "# fixed\n"); });
  s.file("srv/pack/pack/__init__.py");
  s.file("srv/pack/pack/__main__.py");
  const std::string part = s.file("srv/pack/pack/deep/part.py");
  s.start_managed("pack.service", [&] {
    s.become(service(s, "stale.package_newer", "stale", {"-m", "pack"}, s.path("srv/pack")));
  });
  s.later([part] { append(part, "# fixed\n"); });
  const std::string library = s.program("opt/lib/libfast.so.1");
  s.start_managed("library.service", [&] {
    s.become({.label = "stale.library_replaced",
              .truth = "stale",
              .arguments = {s.program("opt/lib/user")},
              .environment = {"CENSUS_MAP=" + library}});
  });
  s.later([&s, library] { s.replace(library); });
}

void stage_links(stage& s) {
  const auto relink = [](const std::string& link, const std::string& target) {
    fs::create_directory_symlink(target, link + ".new");
    fs::rename(link + ".new", link);
  };
  // An executable, a script in the working directory, and one whose shell came by the link.
  for (const char* release : {"2", "3"}) {
    s.program(std::string("srv/app/releases/") + release + "/app");
    s.script(std::string("srv/app/releases/") + release + "/main.py");
  }
  const std::string current = s.path("srv/app/current");
  fs::create_directory_symlink("releases/2", current);
  s.start_managed("link.service",
                  [&] { s.become({.label = "stale.link_binary", .truth = "stale", .arguments = {current + "/app"}}); });
  s.start_managed("linked.service",
                  [&] { s.become(service(s, "stale.link_script", "stale", {current + "/main.py"}, current)); });
  s.start_in_shell("stale.link_directory", [&] {
    s.start_job([&] {
      actor what = service(s, "stale.link_directory", "stale", {"main.py", "--by-hand"}, current);
      what.environment = {"PWD=" + current};
      s.become(what);
    });
  });
  s.later([current, relink] { relink(current, "releases/3"); });
  // Another link of the same release, which is not touched.
  fs::create_directory_symlink("releases/2", s.path("srv/app/stable"));
  s.start_managed("stable.service", [&] {
    s.become({.label = "decoy.link_stays", .arguments = {s.path("srv/app/stable") + "/app", "stable"}});
  });
}

void stage_checkouts(stage& s) {
  const auto checkout = [&](const std::string& name, const std::string& label, const std::string& truth) {
    const std::string script = s.script("home/knox/" + name + "/main.py");
    s.start_managed(name + ".service", [&] { s.become(service(s, label, truth, {script})); });
    return s.file("home/knox/" + name + "/.git/logs/HEAD",
                  reflog('0', 'a', -9000, "clone: from x") + reflog('a', 'b', -5000, "pull: Fast-forward"));
  };
  // Twelve commits, one pull.
  const std::string pulled = checkout("pulled", "stale.checkout_moved", "stale");
  s.later([pulled] { append(pulled, reflog('b', 'c', 0, "pull: Fast-forward")); });
  const std::string back = checkout("back", "decoy.checkout_came_back", "");
  s.later([back] {
    append(back, reflog('b', 'c', 0, "checkout: moving from main to try") +
                     reflog('c', 'b', 0, "checkout: moving from try to main"));
  });
  const std::string committed = checkout("committed", "decoy.committed_what_runs", "");
  s.later([committed] { append(committed, reflog('b', 'c', 0, "commit: what runs since an hour")); });
  const std::string rebased = checkout("rebased", "stale.checkout_rebased", "stale");
  s.later([rebased] {
    append(rebased, reflog('b', 'c', 0, "rebase (start): checkout origin/main") +
                        reflog('c', 'd', 0, "rebase (pick): mine") + reflog('d', 'd', 0, "rebase (finish): returning"));
  });
  // The reflog has the same of reset --soft and of reset --hard: the files tell.
  const std::string soft = checkout("soft", "decoy.checkout_reset_softly", "");
  s.file("home/knox/soft/.git/index", index_of(-5000));
  s.later([soft] { append(soft, reflog('b', 'a', 0, "reset: moving to HEAD~1")); });
  const std::string hard = checkout("hard", "stale.checkout_reset_hard", "stale");
  s.later([&s, hard] {
    s.file("home/knox/hard/.git/index", index_of(0));
    append(hard, reflog('b', 'a', 0, "reset: moving to HEAD~1"));
  });
  checkout("quiet", "decoy.checkout_stays", "");
  // A working tree of another repository's.
  const std::string script = s.script("home/knox/tree/main.py");
  s.file("home/knox/tree/.git", "gitdir: " + s.path("home/knox/repository/.git/worktrees/tree") + "\n");
  s.file("home/knox/repository/.git/worktrees/tree/commondir", "../..\n");
  const std::string tree = s.file("home/knox/repository/.git/worktrees/tree/logs/HEAD", reflog('0', 'a', -9000, "x"));
  s.start_managed("tree.service", [&] { s.become(service(s, "stale.working_tree_moved", "stale", {script})); });
  s.later([tree] { append(tree, reflog('a', 'd', 0, "merge next: Fast-forward")); });
  // Compiled: what counts is whether its file was built anew.
  const std::string built = s.program("home/knox/compiled/build/engine");
  const std::string log = s.file("home/knox/compiled/.git/logs/HEAD", reflog('0', 'a', -9000, "x"));
  s.start_managed("compiled.service", [&] { s.become({.label = "decoy.compiled_in_checkout", .arguments = {built}}); });
  s.later([log] { append(log, reflog('a', 'd', 0, "pull")); });
  if (::geteuid() != 0) return;
  // A stranger's repository is not believed.
  const std::string foreign = checkout("foreign", "decoy.foreign_checkout", "");
  s.later([&s, foreign] {
    append(foreign, reflog('b', 'c', 0, "pull"));
    const bool given = ::chown(s.path("home/knox/foreign/.git").c_str(), 65'534, 65'534) == 0;
    if (!given) append(foreign, reflog('c', 'b', 0, "back"));  // one user is all there is: nothing to tell
  });
}

void stage_unchanged(stage& s) {
  const std::string watched = s.script("srv/watched/web.py");
  s.start_managed("watched.service", [&] { s.become(service(s, "decoy.reloads_itself", "", {watched, "--reload"})); });
  s.later([watched] { append(watched, "# fixed\n"); });
  const std::string site = s.script("srv/site/manage.py");
  s.start_managed("site.service", [&] { s.become(service(s, "decoy.reloads_unless_told", "", {site, "runserver"})); });
  s.start_managed("told.service", [&] {
    s.become(service(s, "stale.told_not_to_reload", "stale", {site, "runserver", "--noreload"}));
  });
  s.later([site] { append(site, "# fixed\n"); });
  const std::string writer = s.script("srv/writer/__main__.py");
  s.file("srv/writer/__init__.py");
  s.start_managed("writer.service", [&] { s.become(service(s, "decoy.writes_beside_itself", "", {writer})); });
  s.later([&s] { s.file("srv/writer/state.json", "{}"); });
  s.start_in_shell("decoy.edited_by_editor", [&] {
    s.start_job([&] {
      s.become(
          {.label = "decoy.edited_by_editor", .arguments = {"vim", watched}, .executable = s.program("usr/bin/vim")});
    });
  });
  // Never on disk: nothing there to be replaced.
  s.start_managed("memory.service", [&] {
    const int memory = ::memfd_create("loader", 0);
    const std::string path = "/proc/self/fd/" + std::to_string(memory);
    const int from = ::open(s.program("opt/memory").c_str(), O_RDONLY);
    char block[65'536];
    for (ssize_t size = 0; (size = ::read(from, block, sizeof block)) > 0;)
      if (::write(memory, block, static_cast<std::size_t>(size)) != size) stage::fail("memfd");
    s.become({.label = "decoy.in_memory", .arguments = {"loader"}, .executable = path});
  });
}

}  // namespace

void stage_stale(stage& s) {
  stage_files(s);
  stage_links(s);
  stage_checkouts(s);
  stage_unchanged(s);
}

}  // namespace census_host
