// Processes that nobody looks after any more, and those that only look so.
#include <ctime>

#include "stage.hpp"

namespace census_host {
namespace {

/// A living agent of that name in a directory, and what it runs.
void start_agent(stage& s, const std::string& label, const std::string& directory, const std::string& truth,
                 const std::function<void()>& jobs) {
  jobs();
  stage::become_reaper();
  s.become({.label = label,
            .truth = truth,
            .arguments = {"claude"},
            .executable = s.program("usr/bin/claude"),
            .directory = directory});
}

actor pytest(stage& s, const std::string& label, const std::string& truth, const std::string& directory) {
  return {.label = label,
          .truth = truth,
          .arguments = {"python3", s.file("home/knox/venv/bin/pytest"), "-x", "tests/" + label},
          .executable = s.program("usr/bin/python3.11"),
          .directory = directory};
}

void stage_open_pane(stage& s) {
  s.start_in_shell("orphan.open_pane", [&] {
    s.start_job([&] {
      ::setenv("CLAUDECODE", "1", 1);
      start_agent(s, "orphan.open_pane: its agent", s.path("home/knox/pane"), "kill", [&] {
        s.start([&] {
          s.start([&] { s.become(pytest(s, "orphan.below", "orphan", s.path("home/knox/pane"))); });
          s.become(pytest(s, "orphan.open_pane", "orphan", s.path("home/knox/pane")));
        });
      });
    });
  });
}

void stage_marked(stage& s) {
  for (const auto& each : std::map<std::string, std::string>{{"claude", "CLAUDECODE=1"},
                                                             {"codex", "CODEX_SANDBOX=seatbelt"},
                                                             {"cursor", "CURSOR_AGENT=1"},
                                                             {"gemini", "GEMINI_CLI=1"},
                                                             {"github", "RUNNER_TRACKING_ID=github_1"},
                                                             {"jenkins", "JENKINS_NODE_COOKIE=77"},
                                                             {"session", "INSTANCE_GUARD_SESSION=s-12"}})
    s.start_left([&] {
      ::setsid();
      actor what = pytest(s, "orphan.mark_" + each.first, "orphan", s.path("home/knox/foresight"));
      what.environment = {each.second};
      s.become(what);
    });
  // Its agent was killed in a pane that is still open.
  s.start_left([&] {
    ::setsid();
    stage_open_pane(s);
    stage::become_reaper();
    s.become({.label = "orphan.open_pane: tmux", .arguments = {s.program("usr/bin/tmux"), "new", "-d"}});
  });
}

void stage_spared_by_mark(stage& s) {
  // A living agent and its work; and what its shell has left, which it may still use.
  s.start_in_shell("decoy.agent", [&] {
    s.start_job([&] {
      ::setenv("CLAUDECODE", "1", 1);
      start_agent(s, "decoy.agent", s.path("home/knox/alive"), "", [&] {
        s.start_session([&] { s.become(pytest(s, "decoy.agents_work", "", s.path("home/knox/alive"))); });
      });
    });
  });
  s.later([&s] {
    s.start_left([&] {
      ::setsid();
      actor what = pytest(s, "decoy.agents_left_work", "", s.path("home/knox/alive"));
      what.environment = {"CLAUDECODE=1"};
      s.become(what);
    });
  });
  const auto marked_daemon = [&](const std::string& label, const std::string& name,
                                 std::vector<std::string> environment) {
    s.start_left([&] {
      ::setsid();
      s.become({.label = label,
                .arguments = {s.program("usr/bin/" + name), "--daemon"},
                .environment = std::move(environment)});
    });
  };
  marked_daemon("decoy.gpg_agent", "gpg-agent", {"CLAUDECODE=1"});
  marked_daemon("decoy.keep", "kept-worker", {"CLAUDECODE=1", "INSTANCE_GUARD_KEEP=1"});
  marked_daemon("decoy.runner_opt_out", "opted-out", {"RUNNER_TRACKING_ID="});
  marked_daemon("decoy.jenkins_opt_out", "opted-out-too", {"JENKINS_NODE_COOKIE=dontKillMe"});
  // An agent was the first to start the tmux server: all its panes carry the mark since.
  s.start_left([&] {
    ::setsid();
    ::setenv("CLAUDECODE", "1", 1);
    s.start_in_terminal([&] {
      s.start_job([&] { s.become({.label = "decoy.pane", .arguments = {s.program("opt/pane-program")}}); });
      s.become_shell("decoy.pane");
    });
    stage::become_reaper();
    s.become({.label = "decoy.tmux", .arguments = {s.program("usr/bin/tmux"), "new", "-d"}});
  });
}

void stage_left(stage& s) {
  s.start_twice_forked([&] {
    s.become({.label = "orphan.double_fork",
              .truth = "orphan",
              .arguments = {s.program("opt/left-twice")},
              .directory = s.path("home/knox")});
  });
  // `setsid sh -c 'worker & …'`, and the shell is gone.
  s.start_session([&] {
    s.start([&] {
      s.become({.label = "orphan.setsid",
                .truth = "orphan",
                .arguments = {s.program("opt/left-by-setsid")},
                .directory = s.path("home/knox")});
    });
    s.become({.label = "orphan.setsid: its leader",
              .truth = "kill",
              .arguments = {"sh", "-c", "left-by-setsid & wait"},
              .executable = s.program("usr/bin/sh")});
  });
  // Its terminal was closed, and it was disowned.
  s.start_in_terminal([&] {
    s.start_job(
        [&] { s.become({.label = "orphan.disowned", .truth = "orphan", .arguments = {s.program("opt/disowned")}}); });
    ::signal(SIGHUP, SIG_IGN);
    s.become({.label = "orphan.disowned: its shell",
              .truth = "kill",
              .arguments = {"-bash"},
              .executable = s.program("usr/bin/bash")});
  });
  // Only its directory tells: session and job live on.
  s.start_in_terminal([&] {
    const std::string directory = s.path("home/knox/worktree");
    fs::create_directories(directory);
    s.start_left([&] {
      s.become({.label = "orphan.directory",
                .truth = "orphan",
                .arguments = {s.program("opt/without-home")},
                .directory = directory});
    });
    s.become_shell("orphan.directory");
  });
  s.later([&s] { fs::remove_all(s.path("home/knox/worktree")); });
}

/// A terminal that nobody has touched for two days, and what runs in it.
void stage_idle(stage& s) {
  s.start_in_terminal([&] {
    s.start_job([&] { s.become({.label = "decoy.idle", .arguments = {s.program("opt/forgotten")}}); });
    const timespec times[2] = {{::time(nullptr) - 2 * 86'400, 0}, {0, UTIME_OMIT}};
    if (::utimensat(AT_FDCWD, s.terminal().c_str(), times, 0) != 0) stage::fail(s.terminal());
    s.become_shell("decoy.idle");
  });
}

void stage_spared(stage& s) {
  stage_idle(s);
  s.start_twice_forked([&] {
    ::signal(SIGHUP, SIG_IGN);
    s.become({.label = "decoy.nohup", .arguments = {s.program("opt/nohup-job")}});
  });
  // Daemons fork twice on purpose. What they do beside tells: they reload on SIGHUP, or go to "/".
  s.start_twice_forked([&] {
    sigset_t hangup;
    sigemptyset(&hangup);
    sigaddset(&hangup, SIGHUP);
    ::sigprocmask(SIG_BLOCK, &hangup, nullptr);
    s.become({.label = "decoy.reloading_daemon",
              .arguments = {s.program("opt/reloading-daemon"), "-D"},
              .directory = s.path("home/knox")});
  });
  s.start_twice_forked([&] {
    s.become({.label = "decoy.root_daemon", .arguments = {s.program("opt/root-daemon"), "-D"}});
  });
  s.start_twice_forked([&] {
    s.become({.label = "decoy.build_daemon",
              .arguments = {"java", "-cp", "/x.jar", "org.gradle.launcher.daemon.bootstrap.GradleDaemon", "8.5"},
              .executable = s.program("usr/bin/java"),
              .directory = s.path("home/knox"),
              .environment = {"CLAUDECODE=1"}});
  });
  // i3 starts every program of a desktop like this.
  s.start_twice_forked([&] {
    s.become({.label = "decoy.window",
              .arguments = {s.program("opt/chat-with-window")},
              .directory = s.path("home/knox"),
              .environment = {"DISPLAY=:0", "CENSUS_MAP=" + s.file("lib/libxcb.so.1.1.0", std::string(4096, 'x'))}});
  });
  s.start_left([&] {
    ::setsid();
    s.become({.label = "decoy.own_session", .arguments = {s.program("opt/daemon")}});
  });
  s.start_left([&] {
    ::setsid();
    const std::string directory = s.path("home/knox/cleared");
    fs::create_directories(directory);
    s.become({.label = "decoy.own_session_without_directory",
              .arguments = {s.program("opt/daemon-too")},
              .directory = directory});
  });
  s.later([&s] { fs::remove_all(s.path("home/knox/cleared")); });
  s.start_twice_forked([&] {
    s.become({.label = "decoy.editor_server",
              .arguments = {"node", s.file("home/knox/.vscode-server/bin/77/out/server-main.js")},
              .executable = s.program("usr/bin/node")});
  });
  s.start_twice_forked([&] {
    s.start([&] { s.become({.label = "decoy.guards_child", .arguments = {s.program("opt/guarded-child")}}); });
    s.become({.label = "decoy.guarded_daemon",
              .arguments = {s.program("opt/guarded-daemon")},
              .environment = {"CENSUS_GUARD=" + s.guard("daemon"), "CENSUS_LOCKS=" + s.locks()}});
  });
  s.start_session([&] {
    s.start_session([&] { s.become({.label = "decoy.cron_job", .arguments = {s.program("opt/nightly")}}); });
    stage::become_reaper();
    s.become({.label = "decoy.cron", .arguments = {s.program("usr/sbin/cron"), "-f"}});
  });
  s.start_session([&] {
    s.start_session([&] { s.become({.label = "decoy.ssh_program", .arguments = {s.program("opt/over-ssh")}}); });
    stage::become_reaper();
    s.become({.label = "decoy.sshd", .arguments = {"sshd: knox@notty"}, .executable = s.program("usr/sbin/sshd")});
  });
  s.start_session([&] {
    s.start_session([&] { s.become({.label = "decoy.supervised", .arguments = {s.program("opt/supervised")}}); });
    stage::become_reaper();
    s.become({.label = "decoy.supervisor",
              .arguments = {"/usr/bin/python3", s.program("usr/bin/supervisord")},
              .executable = s.program("usr/bin/supervisord")});
  });
  if (!s.has_cgroups()) return;
  s.start_managed("forker.service", [&] {
    s.start([&] {
      s.start([&] { s.become({.label = "decoy.units_daemon", .arguments = {s.program("opt/forking-service")}}); });
    });
  });
  // systemd-run --scope
  s.start_managed("run-r77.scope", [&] {
    s.start([&] {
      s.start([&] {
        s.become({.label = "decoy.scope", .arguments = {s.program("opt/in-scope")}, .directory = s.path("home/knox")});
      });
    });
  });
  s.start_managed("session-3.scope", [&] {
    s.start([&] {
      s.start([&] {
        s.become({.label = "orphan.session_scope",
                  .truth = "orphan",
                  .arguments = {s.program("opt/left-by-session")},
                  .directory = s.path("home/knox")});
      });
    });
  });
  s.start_managed("docker-" + std::string(64, 'c') + ".scope", [&] {
    s.start([&] {
      s.start([&] { s.become({.label = "decoy.container", .arguments = {s.program("opt/in-container")}}); });
    });
  });
  s.start_managed("app-gnome-browser-77.scope", [&] {
    s.start([&] { s.start([&] { s.become({.label = "decoy.desktop", .arguments = {s.program("opt/browser")}}); }); });
  });
}

}  // namespace

void stage_orphans(stage& s) {
  for (const char* each : {"foresight", "pane", "alive"})
    fs::create_directories(s.path(std::string("home/knox/") + each));
  stage_marked(s);
  stage_spared_by_mark(s);
  stage_left(s);
  stage_spared(s);
}

void stage_fresh(stage& s) {
  s.start_twice_forked([&] { s.become({.label = "decoy.fresh_orphan", .arguments = {s.program("opt/fresh")}}); });
  // A second start a moment ago of what runs in another terminal.
  s.start_in_shell("decoy.fresh_start", [&] {
    s.start_job([&] {
      s.become({.label = "decoy.fresh_start",
                .arguments = {"python3", s.path("home/knox/lonely/lonely.py")},
                .executable = s.program("usr/bin/python3.11")});
    });
  });
}

}  // namespace census_host
