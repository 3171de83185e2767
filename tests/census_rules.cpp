// The rules of a census on tables that are made by hand: what can't be staged, or only by chance.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <instance_guard/ghost_census.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/temporary_directory.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

/// A host on paper: process 1 is an init, all others are hours old unless they say so. Numbers
/// are beyond what the kernel gives, so that none of them is a process here.
class paper_host {
 public:
  static constexpr pid_t base = 5'000'000;

  paper_host() {
    process_info init = row(1, 0, "systemd");
    init.user = 0;
    rows_.push_back(init);
    details_.emplace_back();
  }

  /// A process; its number counts from `base`.
  struct draft {
    int number = 0;
    int parent = 0;  ///< 0: process 1
    std::string name = "python3";
    std::vector<std::string> arguments = {};
    std::string executable = "/usr/bin/python3.11";
    std::string directory = "/nonexistent/home";
    int session = -1;  ///< -1: its own
    int group = -1;    ///< -1: its own
    std::string cgroup = {};
    std::vector<process_variable> markers = {};
    std::chrono::seconds age = 5h;
    process_state state = process_state::sleeping;
    std::uint64_t terminal = 0;
    uid_t user = ::geteuid();
    std::uint64_t memory = 10 << 20;
    std::string container = {};
  };
  paper_host& with(const draft& what) {
    process_info info =
        row(base + what.number, what.parent == 0 ? 1 : base + what.parent, what.name);
    info.session = base + (what.session < 0 ? what.number : what.session);
    info.group = base + (what.group < 0 ? what.number : what.group);
    info.state = what.state;
    info.terminal = what.terminal;
    info.user = what.user;
    info.resident_bytes = what.memory;
    info.started_at = now_ - what.age;
    process_details more;
    more.arguments = what.arguments;
    more.executable = {what.executable, 0, 0, false};
    more.working_directory.path = what.directory;
    more.cgroup = what.cgroup;
    more.markers = what.markers;
    more.container = what.container;
    rows_.push_back(info);
    details_.push_back(std::move(more));
    return *this;
  }
  process_table table() const { return process_table::of(rows_, details_, now_); }
  census take(census_options options = {}, const process_table* earlier = nullptr) const {
    options.lock_directory = locks_->path();
    return take_census(table(), earlier, options);
  }

 private:
  process_info row(pid_t pid, pid_t parent, const std::string& name) const {
    process_info info;
    info.id = {pid, {}, 1, static_cast<std::uint64_t>(pid)};
    info.parent = parent;
    info.session = info.group = pid;
    info.threads = 1;
    info.state = process_state::sleeping;
    info.started_at = now_ - 24h * 30;
    name.copy(info.name_bytes, sizeof info.name_bytes - 1);
    return info;
  }
  std::chrono::system_clock::time_point now_ = std::chrono::system_clock::now();
  std::vector<process_info> rows_;
  std::vector<process_details> details_;
  std::shared_ptr<support::temporary_directory> locks_ =
      std::make_shared<support::temporary_directory>();
};

using draft = paper_host::draft;

std::string unit(const std::string& name) { return "0::/system.slice/" + name + ".service\n"; }
draft bot(int number, std::vector<std::string> words = {}) {
  words.insert(words.begin(), {"python3", "/nonexistent/shiva/main.py"});
  return {.number = number, .arguments = std::move(words)};
}
draft managed(int number, const std::string& name = "shiva", std::vector<std::string> words = {}) {
  draft result = bot(number, std::move(words));
  result.cgroup = unit(name);
  return result;
}
std::vector<std::string> kinds(const census& result) {
  std::vector<std::string> list;
  for (const ghost& each : result.ghosts) list.emplace_back(to_string(each.kind));
  return list;
}
std::size_t notes(const census& result, note_kind kind) {
  std::size_t count = 0;
  for (const note& each : result.notes) count += each.kind == kind;
  return count;
}

}  // namespace

TEST_CASE("an empty table has no ghosts") {
  const census result = take_census(process_table());
  CHECK(result.ghosts.empty());
  CHECK(result.worst() == severity::note);
}

TEST_CASE(
    "a zombie that was seen once is a note; seen twice it is a ghost, and its parent is named") {
  paper_host host;
  host.with({.number = 1, .name = "careless"})
      .with({.number = 2, .parent = 1, .name = "done", .state = process_state::zombie});
  census once = host.take();
  CHECK(once.ghosts.empty());
  CHECK(notes(once, note_kind::unconfirmed_zombie) == 1);

  const process_table earlier = host.table();
  const census twice = host.take({}, &earlier);
  REQUIRE(kinds(twice) == std::vector<std::string>{"zombie"});
  CHECK(twice.ghosts[0].headline.find("careless") != std::string::npos);
  CHECK(twice.ghosts[0].remedy.find("kill") == std::string::npos);
  CHECK(twice.ghosts[0].remedy.find("careless") != std::string::npos);

  // One that only now has ended was alive in the first look.
  paper_host before;
  before.with({.number = 1, .name = "careless"}).with({.number = 2, .parent = 1, .name = "done"});
  const process_table alive = before.table();
  CHECK(host.take({}, &alive).ghosts.empty());
}

TEST_CASE("a zombie under process 1 needs an init, under a unit a restart of it") {
  paper_host host;
  host.with({.number = 1, .name = "done", .state = process_state::zombie})
      .with({.number = 2, .name = "server", .cgroup = unit("web")})
      .with({.number = 3, .parent = 2, .name = "done", .state = process_state::zombie});
  const process_table earlier = host.table();
  const census result = host.take({}, &earlier);
  REQUIRE(result.ghosts.size() == 2);
  std::string remedies = result.ghosts[0].remedy + "; " + result.ghosts[1].remedy;
  CHECK(remedies.find("--init") != std::string::npos);
  CHECK(remedies.find("systemctl restart web.service") != std::string::npos);
}

TEST_CASE("nineteen orphans of one program are one ghost") {
  paper_host host;
  for (int i = 1; i <= 19; ++i)
    host.with({.number = i,
               .arguments = {"python3", "/nonexistent/bin/pytest", "-x"},
               .markers = {{"CLAUDECODE", "1"}},
               .memory = 400 << 20});
  const census result = host.take();
  REQUIRE(kinds(result) == std::vector<std::string>{"orphan"});
  CHECK(result.ghosts[0].processes.size() == 19);
  CHECK(result.ghosts[0].resident_bytes() == 19ull * (400 << 20));
  CHECK(result.ghosts[0].headline.substr(0, 11) == "19 x pytest");
  CHECK(result.ghosts[0].remedy == "instance-guard reap --orphans --dry-run");
}

TEST_CASE("what leads its own session without a mark is detached, with a mark an orphan") {
  CHECK(notes(paper_host().with({.number = 1, .arguments = {"x"}}).take(), note_kind::detached) ==
        1);
  const census marked =
      paper_host().with({.number = 1, .arguments = {"x"}, .markers = {{"GEMINI_CLI", "1"}}}).take();
  CHECK(kinds(marked) == std::vector<std::string>{"orphan"});
}

TEST_CASE("whether SIGHUP is ignored can't be told: no orphan") {
  // Of a process on paper the system knows nothing.
  const census result =
      paper_host().with({.number = 1, .arguments = {"x"}, .session = 77, .group = 77}).take();
  CHECK(result.ghosts.empty());
  CHECK(notes(result, note_kind::detached) == 1);
}

TEST_CASE("a child of a process 1 that is no init may be its own") {
  paper_host host;
  process_info first;
  first.id = {1, {}, 1, 1};
  first.threads = 1;
  std::string("agent-host").copy(first.name_bytes, 15);
  process_info child = first;
  child.id.pid = child.session = child.group = paper_host::base;
  child.id.start_time = 5;
  child.parent = 1;
  child.user = ::geteuid();
  process_details marked;
  marked.markers = {{"CLAUDECODE", "1"}};
  CHECK(take_census(process_table::of({first, child}, {{}, marked})).ghosts.empty());
  std::string("tini\0      ", 11).copy(first.name_bytes, 11);
  CHECK(
      take_census(process_table::of({first, child}, {{}, marked}, std::chrono::system_clock::now()))
          .ghosts.size() == 1);
}

TEST_CASE("an agent that is process 1 of its container is a living one") {
  process_info first;
  first.id = {1, {}, 1, 1};
  first.threads = 1;
  first.session = first.group = 1;
  first.user = ::geteuid();
  std::string("claude").copy(first.name_bytes, 15);
  process_details agent;
  agent.arguments = {"claude"};
  agent.executable.path = "/usr/bin/claude";
  agent.working_directory.path = "/nonexistent/repo";
  process_info left = first;
  left.id.pid = paper_host::base;
  left.id.start_time = 5;
  left.parent = 1;
  left.session = left.group = paper_host::base + 1;  // of a shell that is gone
  process_details marked;
  marked.arguments = {"x"};
  marked.working_directory.path = "/nonexistent/repo";
  marked.markers = {{"CLAUDECODE", "1"}};
  const auto now = std::chrono::system_clock::now();
  const census spared = take_census(process_table::of({first, left}, {agent, marked}, now));
  CHECK(spared.ghosts.empty());
  CHECK(notes(spared, note_kind::living_agent) == 1);
  agent.executable.path = "/usr/bin/other";
  agent.arguments = {"other"};
  std::string("other\0", 6).copy(first.name_bytes, 6);
  first.name_bytes[5] = first.name_bytes[6] = '\0';
  CHECK(take_census(process_table::of({first, left}, {agent, marked}, now)).ghosts.size() == 1);
}

TEST_CASE("a parent that started later is a stranger with a reused number") {
  paper_host host;
  host.with({.number = 9, .name = "stranger", .arguments = {"stranger"}});
  draft child{.number = 1, .parent = 9, .arguments = {"x"}, .markers = {{"CLAUDECODE", "1"}}};
  const census result = host.with(child).take();
  for (const ghost& each : result.ghosts)
    for (const census_entry& one : each.processes)
      CHECK(one.managed_by.process != paper_host::base + 9);
}

TEST_CASE("a session with an id lives while one of its agents does") {
  const std::vector<process_variable> mine = {{"CLAUDECODE", "1"},
                                              {"CLAUDE_CODE_SESSION_ID", "s1"}};
  const std::vector<process_variable> other = {{"CLAUDECODE", "1"},
                                               {"CLAUDE_CODE_SESSION_ID", "s2"}};
  // An agent under any name, known by the mark that it gives to what it starts.
  const auto host = [&](const std::string& agent, const std::vector<process_variable>& of_agent) {
    return paper_host()
        .with({.number = 1, .name = agent, .arguments = {agent}, .executable = "/usr/bin/" + agent})
        .with({.number = 2,
               .parent = 1,
               .name = "work",
               .arguments = {"work"},
               .executable = "/usr/bin/work",
               .markers = of_agent})
        .with({.number = 3,
               .arguments = {"python3", "/nonexistent/x.py"},
               .directory = "/nonexistent/elsewhere",
               .markers = mine})
        .take();
  };
  const auto is_called = [](const census& result) {
    for (const ghost& each : result.ghosts)
      for (const census_entry& one : each.processes)
        if (one.process.id.pid == paper_host::base + 3) return true;
    return false;
  };
  for (const char* agent : {"claude", "never-heard-of"}) {
    CAPTURE(agent);
    CHECK(!is_called(host(agent, mine)));
    CHECK(is_called(host(agent, other)));
  }
}

TEST_CASE("without an id an agent spares what was left in its directory, if it was there before") {
  const std::vector<process_variable> mark = {{"GEMINI_CLI", "1"}};
  const auto is_called = [&](int agent_number, const std::string& directory) {
    paper_host host;
    host.with({.number = agent_number,
               .name = "agent",
               .arguments = {"agent"},
               .executable = "/usr/bin/agent",
               .directory = "/nonexistent/repo"})
        .with({.number = agent_number + 1,
               .parent = agent_number,
               .name = "work",
               .arguments = {"work"},
               .executable = "/usr/bin/work",
               .markers = mark})
        .with({.number = 5,
               .arguments = {"python3", "/nonexistent/x.py"},
               .directory = directory,
               .markers = mark});
    const census result = host.take();
    bool called = false;
    for (const ghost& each : result.ghosts)
      for (const census_entry& one : each.processes)
        called = called || one.process.id.pid == paper_host::base + 5;
    return called;
  };
  CHECK(!is_called(1, "/nonexistent/repo"));
  CHECK(!is_called(1, "/nonexistent/repo/deep"));
  CHECK(is_called(1, "/nonexistent/repository"));
  CHECK(is_called(7, "/nonexistent/repo"));
}

TEST_CASE("a session that was exported in a shell lives while something of it does") {
  const std::vector<process_variable> mark = {{"INSTANCE_GUARD_SESSION", "s7"}};
  paper_host host;
  host.with({.number = 1,
             .name = "bash",
             .arguments = {"-bash"},
             .executable = "/usr/bin/bash",
             .terminal = 34'817});
  const draft left{.number = 3, .arguments = {"python3", "/nonexistent/x.py"}, .markers = mark};
  paper_host alone = host;
  CHECK(kinds(alone.with(left).take()) == std::vector<std::string>{"orphan"});
  draft living{.number = 2,
               .parent = 1,
               .name = "work",
               .arguments = {"work"},
               .executable = "/usr/bin/work",
               .markers = mark};
  CHECK(host.with(living).with(left).take().ghosts.empty());
}

TEST_CASE("managed beside unmanaged is critical, the managed one is kept") {
  const census result = paper_host().with(bot(1, {"--debug"})).with(managed(2)).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  const ghost& found = result.ghosts[0];
  CHECK(found.level == severity::critical);
  CHECK(found.processes[0].keep);
  CHECK(found.processes[0].process.id.pid == paper_host::base + 2);
  CHECK(found.processes[1].difference == "+--debug");
  CHECK(found.headline == "shiva/main.py runs 2 times");
  CHECK(found.remedy == "instance-guard reap " + std::to_string(paper_host::base + 1));
}

TEST_CASE("a managed one may be young, an unmanaged one not") {
  draft young = managed(2);
  young.age = 5s;
  CHECK(paper_host().with(bot(1)).with(young).take().ghosts.size() == 1);
  draft fresh = bot(1);
  fresh.age = 5s;
  CHECK(paper_host().with(fresh).with(managed(2)).take().ghosts.empty());
  census_options soon;
  soon.min_age = 4s;
  CHECK(paper_host().with(fresh).with(managed(2)).take(soon).ghosts.size() == 1);
}

TEST_CASE("two units with the same arguments are a duplicate, with other arguments not") {
  CHECK(paper_host().with(managed(1)).with(managed(2, "other")).take().ghosts.size() == 1);
  CHECK(paper_host().with(managed(1)).with(managed(2, "other", {"--b"})).take().ghosts.empty());
  CHECK(paper_host().with(managed(1, "w@1")).with(managed(2, "w@2")).take().ghosts.empty());
}

TEST_CASE("workers count with their master, also in sessions of their own") {
  // Nothing else ties them together below cron: no unit, no supervisor, no job.
  const auto job = [](int number, int parent) {
    draft result = bot(number, {"--live"});
    result.parent = parent;
    return result;
  };
  const draft cron{
      .number = 1, .name = "cron", .arguments = {"cron"}, .executable = "/usr/sbin/cron"};
  draft shell{.number = 3,
              .parent = 2,
              .name = "sh",
              .arguments = {"sh", "-c", "x"},
              .executable = "/usr/bin/dash"};
  CHECK(paper_host().with(cron).with(job(2, 1)).with(job(3, 2)).take().ghosts.empty());
  CHECK(paper_host().with(cron).with(job(2, 1)).with(shell).with(job(4, 3)).take().ghosts.empty());
  // But two runs of one job that overlap are two.
  CHECK(paper_host().with(cron).with(job(2, 1)).with(job(3, 1)).take().ghosts.size() == 1);
}

TEST_CASE("not of another user, another container, another directory of a runner") {
  draft other = bot(1);
  other.user = ::geteuid() + 1;
  census_options all;
  all.all_users = true;
  CHECK(paper_host().with(other).with(managed(2)).take(all).ghosts.empty());
  draft contained = bot(1);
  contained.container = std::string(64, 'a');
  CHECK(paper_host().with(contained).with(managed(2)).take().ghosts.empty());
}

TEST_CASE("other arguments, both in terminals, are no duplicate; the same are a warning") {
  draft one = bot(1, {"--a"}), two = bot(2, {"--b"}), same = bot(3, {"--a"});
  one.terminal = two.terminal = same.terminal = 34'817;
  CHECK(paper_host().with(one).with(two).take().ghosts.empty());
  const census result = paper_host().with(one).with(same).take();
  REQUIRE(kinds(result) == std::vector<std::string>{"duplicate"});
  CHECK(result.ghosts[0].level == severity::warning);
}

TEST_CASE("a declared service is counted: too many, none, enough") {
  census_options options;
  options.services = {{"shiva", "shiva/main\\.py", 1}};
  draft one = bot(1, {"--a"}), two = bot(2, {"--b"});
  one.terminal = two.terminal = 34'817;
  const census two_run = paper_host().with(one).with(two).take(options);
  REQUIRE(kinds(two_run) == std::vector<std::string>{"duplicate"});
  CHECK(two_run.services[0].found == 2);
  const census none = paper_host().take(options);
  CHECK(none.services[0].found == 0);
  CHECK(notes(none, note_kind::service_missing) == 1);
  CHECK(none.worst() == severity::warning);
  options.services[0].count = 2;
  CHECK(paper_host().with(one).with(two).take(options).ghosts.empty());
}

TEST_CASE("a shell, grep or an editor that mentions a declared service is not counted") {
  census_options options;
  options.services = {{"shiva", "shiva/main\\.py", 1}};
  const census result = paper_host()
                            .with(managed(1))
                            .with({.number = 2,
                                   .name = "sh",
                                   .arguments = {"sh", "-c", "python3 shiva/main.py"},
                                   .executable = "/usr/bin/dash"})
                            .with({.number = 3,
                                   .name = "grep",
                                   .arguments = {"grep", "shiva/main.py"},
                                   .executable = "/usr/bin/grep"})
                            .with({.number = 4,
                                   .name = "vim",
                                   .arguments = {"vim", "shiva/main.py"},
                                   .executable = "/usr/bin/vim.basic"})
                            .take(options);
  CHECK(result.services[0].found == 1);
  CHECK(result.ghosts.empty());
}

TEST_CASE("a pattern that is none is an error, not a crash; what is ignored is no ghost") {
  census_options options;
  options.ignore = {"("};
  std::error_code ec;
  CHECK(take_census(process_table(), nullptr, options, ec).ghosts.empty());
  CHECK(ec == std::errc::invalid_argument);
  options.ignore = {"shiva/main"};
  CHECK(paper_host().with(bot(1, {"--debug"})).with(managed(2)).take(options).ghosts.empty());
}

TEST_CASE("only the kinds that are asked for") {
  census_options options;
  options.kinds = {ghost_kind::orphan};
  CHECK(paper_host().with(bot(1)).with(managed(2)).take(options).ghosts.empty());
}

TEST_CASE("what runs by hand for long is noted; what a service looks after is not") {
  draft old = bot(1);
  old.terminal = 34'817;
  old.age = 25h;
  draft service = managed(2, "other", {"other"});
  service.age = 25h;
  const census result = paper_host().with(old).with(service).take();
  CHECK(result.ghosts.empty());
  CHECK(notes(result, note_kind::long_running) == 1);
  census_options later;
  later.older_than = 26h;
  CHECK(notes(paper_host().with(old).take(later), note_kind::long_running) == 0);
}

TEST_CASE("processes of others are counted, not looked at") {
  draft other = bot(1);
  other.user = ::geteuid() + 1;
  const census result = paper_host().with(other).with(managed(2)).take();
  CHECK(result.unseen == (::geteuid() == 0 ? 1 : 2));  // and process 1, of root
  REQUIRE(result.blind_spots.size() == 1);
  CHECK(result.blind_spots[0].what == "other_users");
  CHECK(result.complete);
}

TEST_CASE("hostile names and arguments are harmless in all words that are printed") {
  const std::string evil = "\x1b[31m\n\xff)\x9b";
  paper_host host;
  draft one = bot(1, {evil, std::string(131'072, 'A'), "\xe2\x80\xae"});
  one.name = evil;
  one.arguments[1] = "/nonexistent/" + evil + "/main.py";
  draft two = one;
  two.number = 2;
  two.cgroup = unit("shiva");
  draft orphan = one;
  orphan.number = 3;
  orphan.arguments = {evil};
  orphan.executable = "/nonexistent/" + evil;
  orphan.markers = {{"CLAUDECODE", evil}, {"CLAUDE_CODE_SESSION_ID", evil}};
  // A parent that is only known by its name.
  const draft stranger = {.number = 5, .name = evil, .user = ::geteuid() + 1};
  draft dead_too = {.number = 6, .parent = 5, .name = evil, .state = process_state::zombie};
  one.arguments.push_back("--" + evil);
  draft dead = {.number = 4, .parent = 3, .name = evil, .state = process_state::zombie};
  host.with(one).with(two).with(orphan).with(dead).with(stranger).with(dead_too);
  const process_table earlier = host.table();
  census_options options;
  options.older_than = 1h;
  const census result = host.take(options, &earlier);
  CHECK(result.ghosts.size() == 4);
  const auto is_harmless = [](const std::string& text) {
    for (const char c : text)
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f ||
          static_cast<unsigned char>(c) == 0xff)
        return false;
    return text.find("\xe2\x80\xae") == std::string::npos && text.size() < 1000;
  };
  for (const ghost& each : result.ghosts) {
    for (const std::string& text : {each.program, each.headline, each.why, each.remedy})
      CHECK(is_harmless(text));
    for (const census_entry& entry : each.processes) {
      CHECK(is_harmless(entry.difference));
      CHECK(is_harmless(entry.managed_by.text()));
    }
  }
  for (const note& each : result.notes) CHECK(is_harmless(each.text));
}

TEST_CASE("who manages a process is said of each, in the table's order") {
  paper_host host;
  host.with({.number = 1, .name = "cron", .arguments = {"cron"}, .executable = "/usr/sbin/cron"})
      .with({.number = 2, .parent = 1, .arguments = {"job"}})
      .with(managed(3))
      .with({.number = 4,
             .name = "bash",
             .arguments = {"-bash"},
             .executable = "/usr/bin/bash",
             .terminal = 34'817})
      .with({.number = 5, .parent = 4, .arguments = {"x"}, .terminal = 34'817})
      .with({.number = 6, .arguments = {"x"}, .container = std::string(64, 'b')});
  const process_table table = host.table();
  std::error_code ec;
  const std::vector<process_manager> all = managers_of(table, ec);
  REQUIRE(!ec);
  REQUIRE(all.size() == table.size());
  CHECK(all[2].text() == "cron");
  CHECK(all[3].text() == "systemd unit shiva.service");
  CHECK(all[5].kind == manager_kind::terminal);
  CHECK(all[5].terminal == "/dev/pts/1");
  CHECK(all[6].kind == manager_kind::container);
  CHECK(managed_by(table, table[3], ec).name == "shiva.service");
}

TEST_CASE("a table of this host has no fault, and the caller is no ghost") {
  census_options options;
  options.min_age = 0s;
  const process_table before = process_table::read();
  const process_table now = process_table::read();
  const census result = take_census(now, &before, options);
  CHECK(result.processes > 0);
  for (const ghost& each : result.ghosts)
    for (const census_entry& one : each.processes) CHECK(one.process.id.pid != ::getpid());
}
