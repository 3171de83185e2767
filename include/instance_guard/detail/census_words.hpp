// layer 4: programs that a census knows by name, and what they are to it.
//
// Names can be lied about. They are only asked for things that make a census more careful (this is
// a tool, a wrapper, a living agent), or that say what a script is to its interpreter.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

namespace instance_guard::detail {

template <std::size_t N>
constexpr bool is_one_of(std::string_view name, const std::string_view (&list)[N]) noexcept {
  for (const std::string_view each : list)
    if (name == each) return true;
  return false;
}

constexpr bool starts_with(std::string_view text, std::string_view begin) noexcept {
  return text.substr(0, begin.size()) == begin;
}
constexpr bool ends_with(std::string_view text, std::string_view end) noexcept {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// What is behind the last '/'.
constexpr std::string_view base_name(std::string_view path) noexcept {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

/// "b" of "/a/b/c"; empty at the top.
constexpr std::string_view directory_name(std::string_view path) noexcept {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : base_name(path.substr(0, slash));
}

/// "python" of "python3.11", "php" of "php8.2".
constexpr std::string_view without_version(std::string_view name) noexcept {
  std::size_t size = name.size();
  while (size > 0 &&
         ((name[size - 1] >= '0' && name[size - 1] <= '9') || name[size - 1] == '.' || name[size - 1] == '-'))
    --size;
  return size > 0 ? name.substr(0, size) : name;
}

enum class language { none, shell, python, node, deno, ruby, perl, php, java, other };

/// The language that an executable of this name runs scripts of.
constexpr language interpreter_language(std::string_view executable) noexcept {
  const std::string_view name = without_version(executable);
  constexpr std::string_view shells[] = {"sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "ash", "rbash"};
  if (is_one_of(name, shells)) return language::shell;
  constexpr std::string_view pythons[] = {"python", "pypy", "Python", "python3-intel"};
  if (is_one_of(name, pythons)) return language::python;
  constexpr std::string_view nodes[] = {"node", "nodejs", "bun"};
  if (is_one_of(name, nodes)) return language::node;
  if (name == "deno") return language::deno;
  if (name == "ruby") return language::ruby;
  if (name == "perl") return language::perl;
  if (name == "php" || name == "php-cli") return language::php;
  if (name == "java") return language::java;
  constexpr std::string_view others[] = {"lua", "luajit", "tclsh", "Rscript",  "guile",
                                         "awk", "gawk",   "mawk",  "osascript"};
  return is_one_of(name, others) ? language::other : language::none;
}

/// Runs what its arguments say, wherever it is installed, and is none of the languages above.
constexpr bool is_runtime_name(std::string_view name) noexcept {
  constexpr std::string_view names[] = {"beam.smp", "beam", "dotnet", "mono", "julia", "dart", "electron", "R"};
  return is_one_of(name, names) || name.substr(0, 5) == "qemu-" || name.substr(0, 4) == "wine";
}

/// Starts another program in its place of work, and waits for it. It is no program of its own.
constexpr bool is_wrapper_name(std::string_view name) noexcept {
  constexpr std::string_view names[] = {"env",
                                        "nice",
                                        "nohup",
                                        "timeout",
                                        "setsid",
                                        "stdbuf",
                                        "ionice",
                                        "chrt",
                                        "time",
                                        "taskset",
                                        "sudo",
                                        "doas",
                                        "su",
                                        "runuser",
                                        "setpriv",
                                        "unshare",
                                        "nsenter",
                                        "flock",
                                        "strace",
                                        "ltrace",
                                        "script",
                                        "unbuffer",
                                        "xvfb-run",
                                        "uv",
                                        "uvx",
                                        "poetry",
                                        "pipenv",
                                        "pdm",
                                        "hatch",
                                        "rye",
                                        "conda",
                                        "mamba",
                                        "micromamba",
                                        "direnv",
                                        "mise",
                                        "npm",
                                        "npx",
                                        "pnpm",
                                        "yarn",
                                        "npm-cli.js",
                                        "npx-cli.js",
                                        "yarn.js",
                                        "pnpm.cjs",
                                        "tini",
                                        "dumb-init",
                                        "docker-init",
                                        "catatonit",
                                        "instance-guard",
                                        "caffeinate",
                                        "chpst",
                                        "envdir",
                                        "softlimit",
                                        "firejail",
                                        "bwrap",
                                        "systemd-inhibit",
                                        "systemd-cat",
                                        "gosu",
                                        "su-exec",
                                        "entr",
                                        "watchexec",
                                        "nodemon",
                                        "make",
                                        "just",
                                        "task",
                                        "foreman",
                                        "honcho",
                                        "rlwrap",
                                        "proxychains4",
                                        "with-contenv"};
  return is_one_of(name, names);
}

/// Names a file or a program in its arguments without being it: searchers, editors, viewers,
/// transfers, small tools. Never a duplicate.
constexpr bool is_tool_name(std::string_view executable) noexcept {
  const std::string_view name = without_version(executable);
  constexpr std::string_view names[] = {
      "grep",  "egrep",  "fgrep",      "rg",          "ag",        "ack",         "find",
      "fd",    "xargs",  "vi",         "vim",         "vim.basic", "vim.tiny",    "view",
      "nvim",  "nano",   "emacs",      "emacsclient", "ed",        "code",        "micro",
      "hx",    "helix",  "less",       "more",        "most",      "man",         "cat",
      "tail",  "head",   "tee",        "sleep",       "watch",     "top",         "htop",
      "btop",  "ps",     "pgrep",      "pkill",       "pidof",     "kill",        "ssh",
      "scp",   "sftp",   "rsync",      "curl",        "wget",      "git",         "gdb",
      "lldb",  "perf",   "journalctl", "systemctl",   "dmesg",     "ping",        "nc",
      "ncat",  "socat",  "telnet",     "ls",          "cp",        "mv",          "rm",
      "tar",   "gzip",   "zip",        "sed",         "sort",      "cut",         "tr",
      "wc",    "diff",   "dd",         "yes",         "true",      "inotifywait", "psql",
      "mysql", "sqlite", "redis-cli",  "kubectl",     "docker",    "podman",      "docker-compose",
      "vlc",   "mpv",    "busybox",    "fzf",         "bat",       "pipewire",    "wireplumber",
      "tmux",  "screen", "login",      "agetty",      "coreutils"};
  return is_one_of(executable, names) || is_one_of(name, names);
}

/// A tool of developers, of which each session runs its own: never a duplicate, never stale.
constexpr bool is_session_tool(std::string_view program) noexcept {
  constexpr std::string_view names[] = {"pytest",
                                        "py.test",
                                        "unittest",
                                        "tox",
                                        "nox",
                                        "mypy",
                                        "dmypy",
                                        "ruff",
                                        "black",
                                        "pylint",
                                        "flake8",
                                        "isort",
                                        "pip",
                                        "pip3",
                                        "ipython",
                                        "jupyter",
                                        "jupyter-lab",
                                        "jupyter-notebook",
                                        "ipykernel",
                                        "ipykernel_launcher",
                                        "pre-commit",
                                        "pyright",
                                        "pyright-langserver",
                                        "pylsp",
                                        "jedi-language-server",
                                        "debugpy",
                                        "pdb",
                                        "http.server",
                                        "jest",
                                        "vitest",
                                        "mocha",
                                        "eslint",
                                        "tsc",
                                        "tsserver",
                                        "prettier",
                                        "vite",
                                        "webpack",
                                        "esbuild",
                                        "rollup",
                                        "next",
                                        "typescript-language-server",
                                        "playwright",
                                        "cypress",
                                        "cargo",
                                        "rustc",
                                        "rust-analyzer",
                                        "gopls",
                                        "go",
                                        "clangd",
                                        "cmake",
                                        "ctest",
                                        "ninja",
                                        "gcc",
                                        "clang",
                                        "gradle",
                                        "mvn",
                                        "rspec",
                                        "rake",
                                        "irb",
                                        "rubocop",
                                        "solargraph",
                                        "phpunit",
                                        "npm",
                                        "npx",
                                        "pnpm",
                                        "yarn",
                                        "uvx",
                                        "instance-guard"};
  std::string_view name = base_name(program);
  for (const std::string_view end : {".py", ".js", ".mjs", ".cjs", "/__main__"})
    if (name.size() > end.size() && name.substr(name.size() - end.size()) == end) name.remove_suffix(end.size());
  return is_one_of(name, names);
}

/// A helper of a user's or a desktop's sessions, which outlives the one that has started it on
/// purpose.
constexpr bool is_user_daemon(std::string_view name) noexcept {
  constexpr std::string_view names[] = {"gpg-agent",
                                        "dirmngr",
                                        "keyboxd",
                                        "scdaemon",
                                        "ssh-agent",
                                        "dbus-daemon",
                                        "dbus-launch",
                                        "dbus-broker",
                                        "gnome-keyring-d",
                                        "gnome-keyring-daemon",
                                        "adb",
                                        "watchman",
                                        "ccache",
                                        "sccache",
                                        "emacs",
                                        "git-credential-cache--daemon",
                                        "pulseaudio",
                                        "pipewire",
                                        "ibus-daemon",
                                        "gvfsd",
                                        "xdg-desktop-portal",
                                        "at-spi-bus-launcher",
                                        "mosh-server",
                                        "et",
                                        "etserver",
                                        "zellij",
                                        "dtach",
                                        "abduco",
                                        "gvfsd-fuse",
                                        "fusermount3",
                                        "sshfs",
                                        "mysqld_safe",
                                        "Xvfb",
                                        "Xorg",
                                        "gradle",
                                        "bazel",
                                        "java-lsp",
                                        "watchexec",
                                        "vmtoolsd",
                                        "snapd",
                                        "dmypy",
                                        "epmd",
                                        "GradleDaemon",
                                        "KotlinCompileDaemon",
                                        "VBoxSVC",
                                        "VBoxXPCOMIPCD",
                                        "wineserver",
                                        "wineserver64"};
  return is_one_of(name, names);
}

/// Where editors put the part of them that works on a distant host, and stays between two visits.
constexpr bool is_editor_server(std::string_view path) noexcept {
  for (const std::string_view part : {"/.vscode-server/", "/.vscode-server-insiders/", "/.cursor-server/",
                                      "/.windsurf-server/", "/.vscode-remote/", "/.cache/JetBrains/", "/.zed_server/"})
    if (path.find(part) != std::string_view::npos) return true;
  return false;
}

/// Reaps what others leave, by its name; process 1 does without one.
constexpr bool is_init_name(std::string_view name) noexcept {
  constexpr std::string_view names[] = {"init",      "systemd", "tini",      "dumb-init",  "docker-init",
                                        "catatonit", "launchd", "s6-svscan", "runit",      "openrc-init",
                                        "busybox",   "my_init", "pid1",      "podman-init"};
  return is_one_of(name, names);
}

/// A process 1 of this name has started none of what it has below it, but what boots the host or
/// keeps a container open.
constexpr bool is_first_init_name(std::string_view name) noexcept {
  return is_init_name(name) || interpreter_language(name) == language::shell || is_tool_name(name);
}

/// "pm2" of a supervisor's name, or empty.
constexpr std::string_view supervisor_name(std::string_view name) noexcept {
  if (name == "supervisord") return "supervisord";
  if (name == "pm2" || name.substr(0, 5) == "PM2 v") return "pm2";
  if (name == "runsv") return "runit";
  if (name == "s6-supervise") return "s6";
  if (name == "supervise") return "daemontools";
  if (name == "circusd" || name == "monit" || name == "god" || name == "eye" || name == "forever" ||
      name == "immortal" || name == "overmind" || name == "nomad" || name == "process-compose")
    return name;
  return {};
}

/// "claude" of an agent's or CI runner's name, or empty.
constexpr std::string_view agent_name(std::string_view name) noexcept {
  for (const std::string_view end : {".js", ".mjs", ".cjs"})
    if (name.size() > end.size() && name.substr(name.size() - end.size()) == end) name.remove_suffix(end.size());
  if (name == "claude" || name == "claude-code") return "claude";
  if (name == "codex" || name == "codex-cli" || name == "codex-exec") return "codex";
  if (name == "cursor-agent" || name == "cursor" || name == "Cursor") return "cursor";
  if (name == "gemini" || name == "gemini-cli") return "gemini";
  if (name == "gitlab-runner") return "gitlab";
  if (name == "buildkite-agent") return "buildkite";
  if (name == "act_runner" || name == "gitea-runner") return "gitea";
  if (name == "forgejo-runner") return "forgejo";
  if (name == "Runner.Worker" || name == "Runner.Listener") return "github";
  if (name == "agent.jar" || name == "remoting.jar" || name == "slave.jar" || name == "jenkins.war" ||
      name == "swarm-client.jar")
    return "jenkins";
  return {};
}

}  // namespace instance_guard::detail
