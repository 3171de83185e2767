// A census of a staged host (census_host/): each ghost is found, and nothing else is called one.
#include <doctest/doctest.h>

#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/program.hpp"

namespace {

struct verdict {
  std::string label;
  std::set<std::string> expected;  // "orphan", ..., "keep"
  std::set<std::string> found;
  std::map<std::string, std::string> level;  // of each kind
  std::set<std::string> notes;
};

struct census_of_host {
  std::vector<verdict> all;
  std::set<std::string> blind;
  std::string skipped;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

census_of_host take() {
  census_of_host result;
  support::program host({INSTANCE_GUARD_CENSUS_HOST, INSTANCE_GUARD_CENSUS_ACTOR}, {.merge_err = true});
  const std::string text = host.read_all(std::chrono::seconds(200));
  const auto status = host.wait();
  if (status && status->exited() && status->code() == 77) {
    result.skipped = text;
    return result;
  }
  REQUIRE_MESSAGE((status && status->exited() && status->code() == 0), text);
  std::map<std::string, verdict> by_pid;
  for (const std::string& line : split(text, '\n')) {
    const auto field = split(line, '|');
    if (field.size() >= 3 && field[0] == "known") {
      verdict& one = by_pid[field[1]];
      one.label = field[2];
      for (const std::string& each : split(field.size() > 3 ? field[3] : "", ',')) one.expected.insert(each);
    } else if (field.size() == 5 && field[0] == "found") {
      verdict& one = by_pid[field[2]];
      one.found.insert(field[4] == "keep" ? "keep" : field[1]);
      one.level[field[1]] = field[3];
    } else if (field.size() == 3 && field[0] == "note") {
      by_pid[field[2]].notes.insert(field[1]);
    } else if (field.size() == 3 && field[0] == "blind") {
      result.blind.insert(field[1]);
    }
  }
  for (auto& [pid, one] : by_pid) {
    if (one.label.empty()) one.label = "pid " + pid;  // of the host itself
    result.all.push_back(std::move(one));
  }
  return result;
}

const census_of_host& host() {
  static const census_of_host once = take();
  return once;
}

std::string text(const std::set<std::string>& words) {
  std::string result;
  for (const std::string& each : words) result += (result.empty() ? "" : ",") + each;
  return result.empty() ? "nothing" : result;
}

/// All with this label are called what they are, and there are some.
void check(const std::string& label, const std::string& level = "") {
  if (!host().skipped.empty()) {
    MESSAGE(host().skipped);
    return;
  }
  bool known = false;
  for (const verdict& each : host().all) {
    if (each.label != label && !each.label.starts_with(label + ":")) continue;
    known = true;
    CHECK_MESSAGE(each.found == each.expected,
                  each.label << " is " << text(each.expected) << ", was called " << text(each.found));
    for (const auto& found : each.level)
      if (!level.empty())
        CHECK_MESSAGE(found.second == level, each.label << ": " << found.first << " is " << found.second);
  }
  // Some need rights: control groups, other users.
  if (!known) MESSAGE(label << ": not staged here");
  CHECK((known || ::geteuid() != 0));
}

/// No ghosts, but what is said of them, and nothing else.
void check_notes(const std::string& note, std::set<std::string> labels) {
  if (!host().skipped.empty()) return;
  for (const verdict& each : host().all) {
    const bool noted = each.notes.contains(note);
    if (noted || labels.contains(each.label))
      CHECK_MESSAGE(noted == (labels.erase(each.label) > 0), each.label << ": " << note);
  }
  CHECK(labels.empty());
}

}  // namespace

#define FOUND(label, ...) \
  TEST_CASE("found: " label) { check(__VA_ARGS__); }
#define SPARED(label, ...) \
  TEST_CASE("spared: " label) { check(__VA_ARGS__); }

FOUND("a zombie", "zombie.plain")
FOUND("a zombie that led a session (Zs)", "zombie.session")
FOUND("a nice zombie (ZN)", "zombie.nice")
FOUND("a zombie of two threads that have both ended (Zl)", "zombie.threads")
SPARED("a process whose main thread has ended, while another works (Zl)", "decoy.headless")

FOUND("an orphan by setsid, its leader gone", "orphan.setsid")
FOUND("an orphan by double fork", "orphan.double_fork")
FOUND("an orphan in the scope of a session that has ended", "orphan.session_scope")
FOUND("an orphan that was disowned by a shell whose terminal was closed", "orphan.disowned")
FOUND("an orphan whose directory is deleted, in a living session", "orphan.directory")
FOUND("an orphan of an agent in a tmux pane that is still open", "orphan.open_pane")
FOUND("what an orphan has started", "orphan.below")
FOUND("an orphan with the mark of claude", "orphan.mark_claude")
FOUND("an orphan with the mark of codex", "orphan.mark_codex")
FOUND("an orphan with the mark of cursor", "orphan.mark_cursor")
FOUND("an orphan with the mark of gemini", "orphan.mark_gemini")
FOUND("an orphan with the mark of a GitHub runner", "orphan.mark_github")
FOUND("an orphan with the mark of Jenkins", "orphan.mark_jenkins")
FOUND("an orphan of a session that has ended", "orphan.mark_session")
FOUND("a test runner that was left, beside a living one", "orphan.tests_first")
FOUND("another one", "orphan.tests_second")
SPARED("a living agent", "decoy.agent")
SPARED("what a living agent runs", "decoy.agents_work")
SPARED("what was left in the directory of a living agent", "decoy.agents_left_work")
SPARED("a gpg-agent that an agent was the first to need", "decoy.gpg_agent")
SPARED("what says that it is meant to stay", "decoy.keep")
SPARED("what a job has told its runner to leave alone", "decoy.runner_opt_out")
SPARED("what a job has told Jenkins to leave alone", "decoy.jenkins_opt_out")
SPARED("a tmux server that an agent has started", "decoy.tmux")
SPARED("a pane of a tmux server that an agent has started", "decoy.pane")
SPARED("a program in a terminal that nobody has touched", "decoy.idle")
SPARED("a nohup job", "decoy.nohup")
SPARED("a daemon that double-forked and reloads on SIGHUP", "decoy.reloading_daemon")
SPARED("a daemon that double-forked and went to /", "decoy.root_daemon")
SPARED("a build daemon that an agent was the first to need", "decoy.build_daemon")
SPARED("what somebody has started in a scope of its own", "decoy.scope")
SPARED("a program with a window, started by a window manager that forks twice", "decoy.window")
SPARED("a daemon in a session of its own", "decoy.own_session")
SPARED("a daemon in a session of its own, whose directory is deleted", "decoy.own_session_without_directory")
SPARED("the server of an editor that works from elsewhere", "decoy.editor_server")
SPARED("a daemon that double-forked on purpose and holds a guard", "decoy.guarded_daemon")
SPARED("a child of one that holds a guard", "decoy.guards_child")
SPARED("cron", "decoy.cron")
SPARED("a job of cron", "decoy.cron_job")
SPARED("sshd", "decoy.sshd")
SPARED("a program over ssh", "decoy.ssh_program")
SPARED("a supervisor", "decoy.supervisor")
SPARED("what a supervisor runs", "decoy.supervised")
SPARED("a unit that forks twice", "decoy.units_daemon")
SPARED("what was left in a container", "decoy.container")
SPARED("an application of a desktop", "decoy.desktop")
SPARED("an orphan that is young", "decoy.fresh_orphan")

FOUND("a debug start beside a managed one", "duplicate.shiva", "critical")
FOUND("a left over one beside a managed one", "duplicate.predictor", "critical")
FOUND("one that sh -c has started", "duplicate.by-sh", "critical")
FOUND("one that env has started", "duplicate.by-env", "critical")
FOUND("one that timeout has started", "duplicate.by-timeout", "critical")
FOUND("one that uv run has started", "duplicate.by-uv", "critical")
FOUND("one that npm has started, which writes a title over its arguments", "duplicate.by-npm", "critical")
FOUND("one beside a service that starts it by sh -c", "duplicate.by-unit", "critical")
FOUND("one that was started through a link", "duplicate.by-link", "critical")
FOUND("./script beside python3 script", "duplicate.by-shebang", "critical")
FOUND(".venv/bin/python beside /usr/bin/python3", "duplicate.by-venv", "critical")
FOUND("-m module beside its file", "duplicate.by-module", "critical")
FOUND("a directory beside its __main__.py", "duplicate.by-directory", "critical")
FOUND("node . beside node index.js", "duplicate.by-dot", "critical")
FOUND("node server beside node server.js", "duplicate.by-stem", "critical")
FOUND("node . beside the file that package.json names", "duplicate.by-package", "critical")
FOUND("another checkout of the same repository", "duplicate.by-checkout", "critical")
FOUND("the same in two terminals", "duplicate.twice", "warning")
FOUND("a left over one with other arguments", "duplicate.beside-orphan", "warning")
FOUND("one that an agent has started", "duplicate.by-agent", "critical")
FOUND("a compiled one", "duplicate.binary", "critical")
FOUND("one by another hard link", "duplicate.by-hard-link", "critical")
FOUND("one whose guard keeps a service out", "duplicate.blocked", "critical")
SPARED("workers of a master", "decoy.workers")
SPARED("one of a file with many names", "decoy.many-names")
SPARED("a pool that a shell script has started", "decoy.pool")
SPARED("a pool within a unit", "decoy.unit_pool")
SPARED("two units of a template", "decoy.template")
SPARED("a service that many mention", "decoy.famous")
SPARED("grep", "decoy.grep")
SPARED("an editor with the file open", "decoy.editor")
SPARED("a viewer with the file open", "decoy.viewer")
SPARED("tail", "decoy.tail")
SPARED("a shell that mentions the name", "decoy.shell_mentions")
SPARED("an editor of a file that is open in another one", "decoy.editor_of_same_first")
SPARED("the other one", "decoy.editor_of_same_second")
SPARED("a debugger", "decoy.debugger")
SPARED("an installed program in two terminals", "decoy.open_twice_first")
SPARED("the same in the other terminal", "decoy.open_twice_second")
SPARED("two interpreters in terminals", "decoy.repl_first")
SPARED("the other interpreter", "decoy.repl_second")
SPARED("a test runner in two terminals", "decoy.tests_first")
SPARED("the other test runner", "decoy.tests_second")
SPARED("a language server of an editor", "decoy.language_server_first")
SPARED("a language server of another editor", "decoy.language_server_second")
SPARED("an editor", "decoy.editor_first")
SPARED("another editor", "decoy.editor_second")
SPARED("other arguments, both managed", "decoy.both_managed")
SPARED("other arguments, both in terminals", "decoy.both_typed")
SPARED("another subcommand of a program", "decoy.subcommand")
SPARED("another application in the same runner", "decoy.runner")
SPARED("the same server on another port, by its environment", "decoy.port_1")
SPARED("the other server", "decoy.port_2")
SPARED("the same program at work in another directory", "decoy.world_1")
SPARED("the other one at work", "decoy.world_2")
SPARED("one of two guards", "decoy.guard_one")
SPARED("the other of two guards", "decoy.guard_two")
SPARED("another repository", "decoy.other_repository")
SPARED("the same script in a container", "decoy.in_container")
SPARED("the same script of another user", "decoy.other_user")
SPARED("one that was started a moment ago", "decoy.fresh_start")
SPARED("the one that it was started beside", "decoy.alone")

FOUND("a replaced executable", "stale.binary_replaced")
FOUND("a deleted executable", "stale.binary_deleted")
FOUND("an executable that was moved aside", "stale.binary_moved_aside")
FOUND("a newer script", "stale.script_newer")
FOUND("a newer source of its package", "stale.package_newer")
FOUND("a replaced library", "stale.library_replaced")
FOUND("an executable behind a link that leads elsewhere", "stale.link_binary")
FOUND("a script behind a link that leads elsewhere", "stale.link_script")
FOUND("a directory behind a link that leads elsewhere", "stale.link_directory")
FOUND("a checkout that moved in one pull", "stale.checkout_moved")
FOUND("a checkout that was rebased", "stale.checkout_rebased")
FOUND("a checkout that was reset with its files", "stale.checkout_reset_hard")
FOUND("a working tree that moved", "stale.working_tree_moved")
SPARED("one behind a link that stays", "decoy.link_stays")
SPARED("a checkout that moved and came back", "decoy.checkout_came_back")
SPARED("a commit of what runs already", "decoy.committed_what_runs")
SPARED("a checkout that was reset without its files", "decoy.checkout_reset_softly")
SPARED("a checkout that stays", "decoy.checkout_stays")
SPARED("a compiled program in a checkout that moved", "decoy.compiled_in_checkout")
SPARED("somebody else's checkout", "decoy.foreign_checkout")
SPARED("one that reloads its files itself", "decoy.reloads_itself")
SPARED("a server of Django's, which reloads them unless it is told not to", "decoy.reloads_unless_told")
FOUND("one that is told not to", "stale.told_not_to_reload")
SPARED("one that writes data beside its sources", "decoy.writes_beside_itself")
SPARED("an editor with a newer file", "decoy.edited_by_editor")
SPARED("a program that was never on disk", "decoy.in_memory")

TEST_CASE("noted: what was left, and a living agent may use") {
  check_notes("living_agent", {"decoy.agents_left_work"});
}
TEST_CASE("noted: a terminal that nobody has touched, by what it holds") {
  check_notes("idle_session", {"decoy.idle"});
}
TEST_CASE("noted: what seems to be detached on purpose") {
  if (!host().skipped.empty()) return;
  std::set<std::string> missing = {"decoy.nohup", "decoy.own_session", "decoy.keep", "decoy.gpg_agent",
                                   "decoy.editor_server"};
  for (const verdict& each : host().all)
    if (each.notes.contains("detached")) missing.erase(each.label);
  CHECK(missing.empty());
}

TEST_CASE("precision and recall are 1.0 for each kind") {
  if (!host().skipped.empty()) {
    MESSAGE(host().skipped);
    return;
  }
  for (const std::string kind : {"zombie", "orphan", "duplicate", "stale"}) {
    int right = 0, missed = 0, wrong = 0;
    for (const verdict& each : host().all) {
      const bool is = each.expected.contains(kind);
      const bool called = each.found.contains(kind);
      right += is && called;
      missed += is && !called;
      wrong += !is && called;
      CHECK_MESSAGE(is == called, each.label << (is ? " is no " : " is called a ") << kind);
    }
    const double precision = right + wrong > 0 ? static_cast<double>(right) / (right + wrong) : 1;
    const double recall = right + missed > 0 ? static_cast<double>(right) / (right + missed) : 1;
    MESSAGE(kind << ": " << right << " of " << right + missed << " found, " << wrong << " falsely among "
                 << host().all.size() << " processes; precision " << precision << ", recall " << recall);
    CHECK(right > 0);
    CHECK(precision == 1);
    CHECK(recall == 1);
  }
}

TEST_CASE("a stranger's repository is named as not read") {
  if (::geteuid() == 0 && host().skipped.empty()) CHECK(host().blind.contains("foreign_repository"));
}
