// Two of what should run once, by every way that people and machines start things; and what only
// looks like two of one.
#include <grp.h>

#include "stage.hpp"

namespace census_host {
namespace {

/// A Python program of the host: "python3 main.py" in its directory.
struct bot {
  stage& s;
  std::string name;
  std::string directory = s.path("home/knox/" + name);
  std::string script = s.script("home/knox/" + name + "/main.py");
  std::string python = s.program("usr/bin/python3.11");

  actor as(const std::string& label, const std::string& truth, std::vector<std::string> words = {}) const {
    words.insert(words.begin(), {"python3", script});
    return {
        .label = label, .truth = truth, .arguments = std::move(words), .executable = python, .directory = directory};
  }
  void managed(const std::string& truth = "keep") const {
    s.start_managed(name + ".service", [&] { s.become(as("duplicate." + name + ": managed", truth)); });
  }
  /// From a terminal; `part` starts it.
  void by_hand(const std::function<void()>& part) const {
    s.start_in_shell("duplicate." + name, [&] { s.start_job(part); });
  }
  void by_hand(const actor& what) const {
    by_hand([&] { s.become(what); });
  }
  std::string label() const { return "duplicate." + name; }
};

/// Something that waits for a bot that it has started.
void become_wrapper(stage& s, const bot& what, const std::string& label, const std::vector<std::string>& words,
                    const actor& inner) {
  s.start([&] { s.become(inner); });
  s.become({.label = label,
            .arguments = words,
            .executable = s.program("usr/bin/" + words.front()),
            .directory = what.directory});
}

void stage_incident(stage& s) {
  const bot shiva{s, "shiva"};
  shiva.managed();
  shiva.by_hand(shiva.as(shiva.label(), "duplicate", {"--debug"}));
  const bot foresight{s, "predictor"};
  foresight.managed();
  s.start_twice_forked([&] { s.become(foresight.as(foresight.label(), "duplicate")); });
}

void stage_wrapped(stage& s) {
  const auto wrapped = [&](const std::string& name, std::vector<std::string> words) {
    const bot b{s, name};
    b.managed();
    words.insert(words.end(), {"python3", b.script});
    b.by_hand([&] { become_wrapper(s, b, "duplicate." + name + ": wrapper", words, b.as(b.label(), "duplicate")); });
  };
  wrapped("by-sh", {"sh", "-c"});
  wrapped("by-timeout", {"timeout", "7d"});
  wrapped("by-uv", {"uv", "run"});
  // npm writes a title over its arguments.
  const bot by_npm{s, "by-npm"};
  by_npm.managed();
  by_npm.by_hand([&] {
    s.start([&] { s.become(by_npm.as(by_npm.label(), "duplicate")); });
    s.become({.label = "duplicate.by-npm: wrapper",
              .arguments = {"npm start"},
              .executable = s.program("usr/bin/node"),
              .directory = by_npm.directory});
  });
  // env(1) is gone when its program runs; nohup(1) too.
  const bot by_env{s, "by-env"};
  by_env.managed();
  by_env.by_hand([&] {
    actor what = by_env.as(by_env.label(), "duplicate");
    what.environment = {"LOG=1"};
    s.become(what);
  });
  // The other way round: the service has a wrapper.
  const bot by_unit{s, "by-unit"};
  s.start_managed("by-unit.service", [&] {
    become_wrapper(s, by_unit, "duplicate.by-unit: wrapper", {"sh", "-c", "python3 main.py"},
                   by_unit.as("duplicate.by-unit: managed", "keep"));
  });
  by_unit.by_hand(by_unit.as(by_unit.label(), "duplicate"));
}

void stage_spelled(stage& s) {
  const bot link{s, "by-link"};
  link.managed();
  fs::create_directory_symlink(link.directory, s.path("home/knox/latest"));
  actor what = link.as(link.label(), "duplicate");
  what.arguments[1] = s.path("home/knox/latest/main.py");
  link.by_hand(what);

  const bot shebang{s, "by-shebang"};
  shebang.managed();
  shebang.by_hand({.label = shebang.label(),
                   .truth = "duplicate",
                   .arguments = {"./main.py"},
                   .executable = shebang.script,
                   .directory = shebang.directory});

  const bot venv{s, "by-venv"};
  venv.managed();
  fs::create_directories(venv.directory + "/.venv/bin");
  fs::create_symlink(venv.python, venv.directory + "/.venv/bin/python");
  actor in_venv = venv.as(venv.label(), "duplicate");
  in_venv.arguments = {".venv/bin/python", "main.py"};
  in_venv.executable = venv.directory + "/.venv/bin/python";
  venv.by_hand(in_venv);

  // "-m oracle" runs oracle/__main__.py.
  const std::string home = s.path("home/knox/oracle");
  const std::string main_file = s.file("home/knox/oracle/oracle/__main__.py");
  s.start_managed("oracle.service", [&] {
    s.become({.label = "duplicate.by-module: managed",
              .truth = "keep",
              .arguments = {"python3", "-m", "oracle"},
              .executable = s.program("usr/bin/python3.11"),
              .directory = home});
  });
  s.start_in_shell("duplicate.by-module", [&] {
    s.start_job([&] {
      s.become({.label = "duplicate.by-module",
                .truth = "duplicate",
                .arguments = {"python", "-u", "-X", "dev", main_file},
                .executable = s.program("usr/bin/python3.11")});
    });
  });

  // A directory, or a name without its end: the interpreter knows which file is meant.
  const auto implied = [&](const std::string& name, const char* interpreter, const std::string& file,
                           std::string word) {
    const std::string directory = s.path("home/knox/" + name);
    const std::string path = s.file("home/knox/" + name + "/" + file);
    const auto as = [&, interpreter](const std::string& label, const std::string& truth, const std::string& script) {
      return actor{.label = label,
                   .truth = truth,
                   .arguments = {interpreter, script},
                   .executable = s.program(std::string("usr/bin/") + interpreter),
                   .directory = directory};
    };
    s.start_managed(name + ".service", [&] { s.become(as("duplicate." + name + ": managed", "keep", path)); });
    s.start_in_shell("duplicate." + name,
                     [&] { s.start_job([&] { s.become(as("duplicate." + name, "duplicate", word)); }); });
  };
  implied("by-directory", "python3.11", "seer/__main__.py", "seer");
  implied("by-dot", "node", "index.js", ".");
  implied("by-stem", "node", "server.js", "./server");
  s.file("home/knox/by-package/package.json", "{\"bin\": {\"main\": \"x\"}, \"main\": \"./lib/start\"}\n");
  s.file("home/knox/by-package/index.js");
  implied("by-package", "node", "lib/start.js", ".");

  const bot checkout{s, "by-checkout"};
  const std::string config = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = ";
  s.file("home/knox/by-checkout/.git/config", config + "git@github.com:knox/by-checkout.git\n");
  s.file("home/knox/copy/.git/config", config + "https://github.com/knox/by-checkout\n");
  checkout.managed();
  actor other = checkout.as(checkout.label(), "duplicate");
  other.arguments[1] = s.script("home/knox/copy/main.py");
  other.directory = s.path("home/knox/copy");
  checkout.by_hand(other);
}

void stage_unmanaged(stage& s) {
  const bot twice{s, "twice"};
  const auto in_session = [twice](const std::string& label, const std::string& truth, const std::string& session) {
    actor what = twice.as(label, truth, {"--live"});
    what.environment = {"SSH_CONNECTION=" + session, "PORT=80"};
    twice.by_hand(what);
  };
  in_session("duplicate.twice: first", "keep", "1");
  s.later([twice, in_session] { in_session(twice.label(), "duplicate", "2"); });
  // Other arguments, but nobody looks after one of them.
  const bot beside{s, "beside-orphan"};
  beside.by_hand(beside.as("duplicate.beside-orphan: first", "keep"));
  s.start_twice_forked([&] { s.become(beside.as(beside.label(), "duplicate", {"--old"})); });
  const bot agents{s, "by-agent"};
  agents.managed();
  s.start_in_shell("duplicate.by-agent", [&] {
    s.start_job([&] {
      ::setenv("CLAUDECODE", "1", 1);
      s.start_session([&] { s.become(agents.as(agents.label(), "duplicate")); });
      stage::become_reaper();
      s.become({.label = "duplicate.by-agent: agent",
                .arguments = {"claude"},
                .executable = s.program("usr/bin/claude"),
                .directory = agents.directory});
    });
  });
  // A compiled one.
  const std::string binary = s.program("opt/feed/feed");
  s.start_managed("feed.service",
                  [&] { s.become({.label = "duplicate.binary: managed", .truth = "keep", .arguments = {binary}}); });
  s.start_in_shell("duplicate.binary", [&] {
    s.start_job([&] {
      s.become({.label = "duplicate.binary",
                .truth = "duplicate",
                .arguments = {"./feed", "--verbose"},
                .executable = binary,
                .directory = s.path("opt/feed")});
    });
  });
  // One file under two paths; under two names it may be two programs.
  const auto linked = [&](const std::string& label, const std::string& truth, const std::string& first,
                          const std::string& second) {
    const std::string from = s.program("opt/" + first), to = s.path("srv/" + second);
    fs::create_directories(fs::path(to).parent_path());
    fs::create_hard_link(from, to);
    s.start_managed(label.substr(label.find('.') + 1) + ".service", [&] {
      s.become({.label = label + ": managed", .truth = truth.empty() ? "" : "keep", .arguments = {from}});
    });
    s.start_in_shell(label, [&] {
      s.start_job([&] { s.become({.label = label, .truth = truth, .arguments = {to, "--verbose"}}); });
    });
  };
  linked("duplicate.by-hard-link", "duplicate", "linked/feeder", "linked/feeder");
  linked("decoy.many-names", "", "many/ticker", "many/quoter");
  // The service was refused, because somebody's own copy has the guard.
  const std::string guard = "CENSUS_GUARD=" + s.guard("blocked");
  const std::string locks = "CENSUS_LOCKS=" + s.locks();
  s.start_in_shell("duplicate.blocked", [&] {
    s.start_job([&] {
      s.become({.label = "duplicate.blocked",
                .truth = s.has_cgroups() ? "duplicate" : "",
                .arguments = {s.program("opt/blocker")},
                .environment = {guard, locks}});
    });
  });
  s.later([&s, guard, locks] {
    if (!s.has_cgroups()) return;
    s.start_managed("blocked.service", [&] {
      s.become({.label = "duplicate.blocked: service",
                .arguments = {s.program("opt/blocked")},
                .environment = {guard, locks}});
    });
  });
}

/// Copies that are meant.
void stage_pools(stage& s) {
  const bot server{s, "server"};
  const auto master = [&](const std::string& label) {
    for (int i = 0; i < 3; ++i) s.start([&] { s.become(server.as(label + ": worker", "", {"--bind", ":80"})); });
    stage::become_reaper();
    s.become(server.as(label, "", {"--bind", ":80"}));
  };
  server.by_hand([&] { master("decoy.workers"); });
  const bot pool{s, "pool"};
  pool.by_hand([&] {
    for (int i = 0; i < 3; ++i) s.start([&] { s.become(pool.as("decoy.pool: member", "", {"--queue", "a"})); });
    stage::become_reaper();
    s.become({.label = "decoy.pool",
              .arguments = {"bash", s.file("home/knox/pool/start.sh")},
              .executable = s.program("usr/bin/bash"),
              .directory = pool.directory});
  });
  const bot unit{s, "unit-pool"};
  s.start_managed("unit-pool.service", [&] {
    for (int i = 0; i < 2; ++i) s.start_session([&] { s.become(unit.as("decoy.unit_pool", "")); });
    s.become(unit.as("decoy.unit_pool: main", ""));
  });
  if (!s.has_cgroups()) return;
  const bot templates{s, "templates"};
  for (const char* number : {"1", "2"})
    s.start_managed(std::string("worker@") + number + ".service",
                    [&] { s.become(templates.as("decoy.template", "")); });
}

/// They mention a bot that runs, or are run by everybody.
void stage_mentions(stage& s) {
  const bot famous{s, "famous"};
  s.start_managed("famous.service", [&] { s.become(famous.as("decoy.famous", "")); });
  const auto in_terminal = [&](const std::string& label, const std::string& program, std::vector<std::string> words) {
    words.insert(words.begin(), program);
    s.start_in_shell(label, [&] {
      s.start_job([&] {
        s.become({.label = label,
                  .arguments = words,
                  .executable = s.program("usr/bin/" + program),
                  .directory = famous.directory});
      });
    });
  };
  in_terminal("decoy.grep", "grep", {"-r", "main.py", "."});
  in_terminal("decoy.editor", "vim", {famous.script});
  in_terminal("decoy.viewer", "less", {famous.script});
  in_terminal("decoy.tail", "tail", {"-f", "famous/main.py.log"});
  in_terminal("decoy.shell_mentions", "bash", {"-c", "while true; do pgrep -f famous/main.py; done"});
  in_terminal("decoy.debugger", "gdb", {"--args", "python3", famous.script});
  for (const char* which : {"first", "second"}) {
    s.start_in_shell(std::string("decoy.open_twice_") + which, [&] {
      s.start_job([&] {
        s.become({.label = std::string("decoy.open_twice_") + which,
                  .arguments = {s.program("home/knox/.local/bin/lazygit")}});
      });
    });
    in_terminal(std::string("decoy.repl_") + which, "python3.11", {});
    const auto tests = [&](const std::string& label, const std::string& truth) {
      s.become({.label = label,
                .truth = truth,
                .arguments = {"python3", s.file("home/knox/venv/bin/pytest")},
                .executable = s.program("usr/bin/python3.11"),
                .directory = famous.directory});
    };
    s.start_in_shell(std::string("decoy.tests_") + which,
                     [&] { s.start_job([&] { tests(std::string("decoy.tests_") + which, ""); }); });
    // Left over, but each session runs its own tests.
    s.start_twice_forked([&] { tests(std::string("orphan.tests_") + which, "orphan"); });
    in_terminal(std::string("decoy.editor_of_same_") + which, "vim", {"notes.txt"});
    // Each editor has a language server of its own.
    s.start_in_shell(std::string("decoy.editor_") + which, [&] {
      s.start_job([&] {
        s.start([&] {
          s.become({.label = std::string("decoy.language_server_") + which,
                    .arguments = {"node", s.file("home/knox/ls/server.js"), "--stdio"},
                    .executable = s.program("usr/bin/node")});
        });
        s.become({.label = std::string("decoy.editor_") + which,
                  .arguments = {s.program("opt/editor/editor"), std::string(which) + ".py"}});
      });
    });
  }
}

/// One program, but other work.
void stage_other_work(stage& s) {
  const bot two{s, "two-wallets"};
  if (s.has_cgroups())
    for (const char* wallet : {"a", "b"})
      s.start_managed(std::string("wallet-") + wallet + ".service", [&] {
        s.become(two.as("decoy.both_managed", "", {"--wallet", wallet}));
      });
  const bot typed{s, "typed"};
  for (const char* wallet : {"a", "b"}) typed.by_hand(typed.as("decoy.both_typed", "", {"--wallet", wallet}));
  const std::string tool = s.program("opt/llm/llm");
  s.start_managed("llm.service", [&] {
    s.become({.label = "decoy.subcommand: service", .arguments = {tool, "serve"}});
  });
  s.start_in_shell("decoy.subcommand", [&] {
    s.start_job([&] { s.become({.label = "decoy.subcommand", .arguments = {"llm", "chat"}, .executable = tool}); });
  });
  const std::string uvicorn = s.file("home/knox/venv/bin/uvicorn");
  const auto serve = [&](const std::string& label, const std::string& app) {
    s.become({.label = label,
              .arguments = {"python3", uvicorn, "--port", "80", app},
              .executable = s.program("usr/bin/python3.11"),
              .directory = s.path("home/knox")});
  };
  s.start_managed("app.service", [&] { serve("decoy.runner: service", "a:app"); });
  s.start_in_shell("decoy.runner", [&] { s.start_job([&] { serve("decoy.runner", "b:app"); }); });
  // Told to do different things by their environment, or by the directory they are in.
  const bot ports{s, "ports"};
  const bot worlds{s, "worlds"};
  for (const char* each : {"1", "2"}) {
    actor server = ports.as(std::string("decoy.port_") + each, "");
    server.environment = {std::string("PORT=300") + each, "SSH_TTY=/dev/pts/" + std::string(each)};
    ports.by_hand(server);
    actor world = worlds.as(std::string("decoy.world_") + each, "");
    world.directory = s.path(std::string("home/knox/world-") + each);
    fs::create_directories(world.directory);
    worlds.by_hand(world);
  }
  // Two guards are two names: both are meant.
  const bot guards{s, "guards"};
  for (const char* each : {"one", "two"})
    guards.by_hand([&] {
      actor what = guards.as(std::string("decoy.guard_") + each, "", {"--same"});
      what.environment = {"CENSUS_GUARD=" + s.guard(each), "CENSUS_LOCKS=" + s.locks()};
      s.become(what);
    });
  // Of another repository, at the same place in it.
  const bot mine{s, "mine"};
  s.file("home/knox/mine/.git/config", "[remote \"origin\"]\n\turl = https://github.com/knox/mine\n");
  s.file("home/knox/theirs/.git/config", "[remote \"origin\"]\n\turl = https://github.com/other/mine\n");
  s.start_managed("mine.service", [&] { s.become(mine.as("decoy.other_repository: service", "")); });
  actor theirs = mine.as("decoy.other_repository", "");
  theirs.arguments[1] = s.script("home/knox/theirs/main.py");
  mine.by_hand(theirs);
  const bot lonely{s, "lonely"};
  s.script("home/knox/lonely/lonely.py");
  actor first = lonely.as("decoy.alone", "");
  first.arguments[1] = s.path("home/knox/lonely/lonely.py");
  lonely.by_hand(first);
  if (s.has_cgroups()) {
    const bot contained{s, "contained"};
    contained.by_hand(contained.as("decoy.in_container: outside", ""));
    s.start_managed("docker-" + std::string(64, 'd') + ".scope",
                    [&] { s.become(contained.as("decoy.in_container", "")); });
  }
  if (::geteuid() == 0) {
    const bot users{s, "users"};
    s.start_managed("users.service", [&] { s.become(users.as("decoy.other_user: service", "")); });
    s.start_in_shell("decoy.other_user", [&] {
      s.start_job([&] {
        // Where there is but one user (a user namespace), there is nothing to tell apart.
        if (::setgroups(0, nullptr) != 0 || ::setresuid(65'534, 65'534, 65'534) != 0) return;
        s.become(users.as("decoy.other_user", ""));
      });
    });
  }
}

}  // namespace

void stage_duplicates(stage& s) {
  stage_incident(s);
  stage_wrapped(s);
  stage_spelled(s);
  stage_unmanaged(s);
  stage_pools(s);
  stage_mentions(s);
  stage_other_work(s);
}

}  // namespace census_host
