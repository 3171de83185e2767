// layer 4: what a process runs: the script rather than its interpreter, the file rather than the
// link or the name that it was started by.
//
// The arguments are what the process wants them to be. They are only compared, and looked up as
// file names.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "census_arguments.hpp"
#include "census_package.hpp"
#include "census_view.hpp"
#include "printable_text.hpp"

namespace instance_guard::detail {

/// A file that a package manager has put there.
inline bool is_system_file(std::string_view path) noexcept {
  for (const std::string_view place :
       {"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/", "/usr/lib", "/lib", "/usr/libexec/", "/usr/share/", "/usr/games/",
        "/snap/", "/nix/store/", "/var/lib/flatpak/", "/usr/local/lib/", "/opt/homebrew/", "/System/", "/Applications/",
        "/Library/"})
    if (starts_with(path, place)) return true;
  return false;
}

/// Installed for whoever wants to run it: by a package manager, or by a user for all his work.
inline bool is_installed_file(std::string_view path) noexcept {
  if (is_system_file(path)) return true;
  for (const std::string_view part : {"/.local/bin/", "/.cargo/bin/", "/go/bin/", "/.nvm/", "/.pyenv/versions/",
                                      "/.asdf/", "/.local/share/", "/.bun/bin/", "/.deno/bin/"})
    if (path.find(part) != std::string_view::npos) return true;
  return starts_with(path, "/usr/local/bin/") || starts_with(path, "/usr/local/sbin/");
}

/// A script that runs whatever it is told to: of a package, or made by its installer.
inline bool is_generic_script(std::string_view path) noexcept {
  for (const std::string_view part : {"/site-packages/", "/dist-packages/", "/node_modules/", "/gems/"})
    if (path.find(part) != std::string_view::npos) return true;
  const std::string_view directory = directory_name(path);
  return directory == "bin" || directory == "sbin" || directory == "libexec" || is_system_file(path);
}

/// The last two parts of a path, harmless to print.
inline std::string short_path(std::string_view path) {
  const std::string_view name = base_name(path);
  const std::string_view directory = directory_name(path);
  if (directory.empty() || directory == "bin" || is_generic_script(path)) return escaped(name);
  return escaped(directory) + "/" + escaped(name);
}

/// __main__.py and main.py of one directory start the same program.
inline std::string folded(std::string_view path) {
  const std::string_view name = base_name(path);
  if (name == "__main__.py" || name == "main.py") return parent_path(path) + "/(main)";
  return std::string(path);
}

/// What follow_path() finds, as this process means it; a file that is not there keeps its name.
inline void set_path(census_program& out, const std::string& absolute, const census_view& view) {
  const followed_path& followed = view.follow(absolute);
  out.links = followed.links;
  if (!followed.path.empty() && S_ISREG(followed.facts.st_mode)) out.path = followed.path;
}

/// The file of "-m shiva": beside the working directory, as Python looks first.
inline bool set_module_path(census_program& out, const std::string& directory, const std::string& module,
                            const census_view& view) {
  std::string relative = module;
  for (char& c : relative)
    if (c == '.') c = '/';
  for (const char* end : {"/__main__.py", ".py"}) {
    set_path(out, absolute_path(directory, relative + end), view);
    if (!out.path.empty()) return true;
  }
  return false;
}

/// "python3 shiva", of a directory, and "node ." or "node index": what the interpreter looks for then.
inline void set_implied_path(census_program& out, const std::string& absolute, uid_t user, const census_view& view) {
  const std::vector<passed_link> links = out.links;
  constexpr std::string_view beside[] = {"", ".js", "/index.js"};
  const auto look_for = [&](const std::string& path) {
    if (out.path.empty()) set_path(out, path, view);
  };
  if (out.interpreter == language::python) look_for(absolute + "/__main__.py");
  if (out.interpreter == language::node) {
    look_for(absolute + ".js");
    const followed_path& directory = view.follow(absolute);
    std::string main;
    if (out.path.empty() && S_ISDIR(directory.facts.st_mode) && !directory.path.empty() &&
        read_package_main(directory.path, user, view.slow, main)) {
      for (const std::string_view end : beside)
        if (!main.empty()) look_for(absolute + "/" + main + std::string(end));
      look_for(absolute + "/index.js");
    }
  }
  if (out.path.empty()) out.links = links;
}

inline void resolve_script(census_process& of, const interpreted& found, bool same_root, const census_view& view) {
  census_program& out = of.program;
  const std::string& directory = of.details->working_directory.path;
  const auto& arguments = of.image->arguments;
  out.given = found.name;
  for (std::size_t i = found.behind; i < arguments.size(); ++i) out.rest.push_back(arguments[i]);
  if (found.kind == interpreted::what::module) {
    out.module = true;
    if (same_root && out.interpreter == language::python && set_module_path(out, directory, found.name, view)) {
      out.key = "s:" + folded(out.path);
      out.shown = ends_with(out.path, "/__main__.py") ? escaped(found.name) : short_path(out.path);
      return;
    }
    const std::string_view interpreter = arguments.front();
    out.key = "m:" + found.name + "@" + (starts_with(interpreter, "/") ? parent_path(interpreter) : "");
    out.shown = escaped(found.name);
    out.generic = true;
    return;
  }
  // A pipe of the shell's (<(…)) or standard input: another one for each.
  if (starts_with(found.name, "/dev/") || starts_with(found.name, "/proc/")) return;
  const std::string absolute = absolute_path(directory, found.name);
  if (same_root) set_path(out, absolute, view);
  if (same_root && out.path.empty()) set_implied_path(out, absolute, of.info->user, view);
  const std::string& path = out.path.empty() ? absolute : out.path;
  out.generic = is_generic_script(path);
  out.key = "s:" + folded(path);
  out.shown = short_path(starts_with(found.name, "/") ? found.name : path);
}

/// The same for all hard links of one file that have one name: links of other names may be other
/// programs (busybox). Empty: the file has one link, or is not the one that runs.
inline std::string linked_key(const census_process& of, const std::string& path, const census_view& view) {
  const followed_path& there = view.follow(path);
  struct stat running = {};
  if (there.path.empty() || !S_ISREG(there.facts.st_mode) || there.facts.st_nlink < 2 ||
      !stat_executable(of, running) || !same_file(there.facts, running))
    return {};
  return "b:" + std::to_string(running.st_dev) + ":" + std::to_string(running.st_ino) + "/" +
         std::string(base_name(path));
}

inline bool is_session_program(std::string_view name) noexcept {
  constexpr std::string_view names[] = {"tmux",
                                        "screen",
                                        "SCREEN",
                                        "sshd",
                                        "sshd-session",
                                        "cron",
                                        "crond",
                                        "CRON",
                                        "cronie",
                                        "anacron",
                                        "atd",
                                        "login",
                                        "agetty",
                                        "getty",
                                        "fcron",
                                        "dropbear",
                                        "gnome-terminal-server",
                                        "gnome-terminal-",
                                        "konsole",
                                        "xterm",
                                        "urxvt",
                                        "kitty",
                                        "alacritty",
                                        "wezterm-gui",
                                        "foot",
                                        "xfce4-terminal",
                                        "terminator",
                                        "tilix",
                                        "ptyxis",
                                        "ghostty",
                                        "mosh-server",
                                        "zellij",
                                        "dtach",
                                        "abduco",
                                        "gdm-session-worker",
                                        "lightdm",
                                        "sddm-helper",
                                        "systemd-logind",
                                        "containerd-shim",
                                        "containerd-shim-runc-v2",
                                        "conmon",
                                        "ttyd",
                                        "code-server"};
  return is_one_of(name, names) || starts_with(name, "tmux: ");
}

/// An agent or a supervisor, by its name; else unknown.
inline process_role role_of_agent(std::string_view name) noexcept {
  if (!agent_name(name).empty()) return process_role::agent;
  if (!supervisor_name(name).empty()) return process_role::supervisor;
  return process_role::unknown;
}

/// By its name alone: of a process of somebody else.
inline process_role role_of_name(std::string_view name) noexcept {
  return is_session_program(name) ? process_role::session : role_of_agent(name);
}

/// Outlives those who started it on purpose.
inline bool is_meant_to_stay(const census_process& of) {
  // "org.gradle.launcher.daemon.bootstrap.GradleDaemon", "mypy.dmypy"
  const std::string_view module = of.program.module || of.program.interpreter == language::java
                                      ? std::string_view(of.program.given)
                                      : std::string_view();
  return is_user_daemon(executable_name(of)) || is_user_daemon(of.info->name()) ||
         is_user_daemon(module.substr(module.rfind('.') + 1)) || is_editor_server(of.image->executable.path) ||
         is_editor_server(of.program.path);
}

/// Fills role and program.
inline void resolve_program(census_process& of, const census_view& view) {
  std::string name = executable_name(of);
  const auto& arguments = of.image->arguments;
  // Alpine's sh and crond are busybox. What else it is called as stays a tool.
  if (name == "busybox" && !arguments.empty()) {
    std::string_view called = base_name(arguments.front());
    if (starts_with(called, "-")) called.remove_prefix(1);  // of a login
    if (interpreter_language(called) == language::shell || is_session_program(called)) name = called;
  }
  of.role = role_of_name(of.image->executable.path.empty() ? of.info->name() : std::string_view(name));
  if ((of.pid() == 1 && is_first_init_name(of.info->name())) || name == "systemd" || of.info->name() == "(sd-pam)")
    of.role = process_role::session;
  if (!of.visible || !of.alive() || of.role == process_role::session) return;
  const bool same_root = of.same_root = platform::shares_root(of.pid(), view.own_root);
  census_program& out = of.program;
  out.interpreter = interpreter_language(name);
  if (!arguments.empty())
    for (const std::string_view also : {of.info->name(), base_name(arguments.front())})
      if (of.role == process_role::unknown) of.role = role_of_agent(also);
  if (out.interpreter == language::none) {
    const std::string& path = of.image->executable.path;
    out.given = arguments.empty() ? path : arguments.front();
    if (!path.empty() && !starts_with(path, "/memfd:")) {
      out.path = path;
      if (same_root) out.key = linked_key(of, path, view);
      if (out.key.empty()) out.key = "b:" + path;
      out.generic = is_installed_file(path) || is_runtime_name(name);
    }
    out.shown = escaped(name);
    for (std::size_t i = 1; i < arguments.size(); ++i) out.rest.push_back(arguments[i]);
    // A title that it has written over its arguments ("redis-server *:6380") says more than none.
    const auto is_empty = [](const std::string& each) { return each.empty(); };
    if (out.generic && out.given.find(' ') != std::string::npos && out.given.find(' ') != 0 &&
        std::all_of(out.rest.begin(), out.rest.end(), is_empty))
      out.rest.assign(1, out.given);
    if (same_root && starts_with(out.given, "/")) out.links = view.follow(out.given).links;
  } else {
    const interpreted found = program_of_arguments(out.interpreter, arguments);
    if (found.kind == interpreted::what::script || found.kind == interpreted::what::module)
      resolve_script(of, found, same_root, view);
    else if (out.interpreter == language::shell && of.role == process_role::unknown)
      of.role = found.kind == interpreted::what::text ? process_role::wrapper : process_role::shell;
    else if (arguments.size() == 1)
      out.given = arguments.front().substr(0, arguments.front().find(' '));  // a title: "npm start"
    if (out.shown.empty()) out.shown = escaped(name);
  }
  const std::string_view script = base_name(out.key.empty() ? out.given : out.key);
  if (of.role == process_role::unknown) of.role = role_of_agent(script);
  if (of.role != process_role::unknown) return;
  if (of.image->executable_fault && arguments.empty()) return;
  const bool wraps = is_wrapper_name(out.interpreter == language::none ? std::string_view(name) : script);
  if (wraps) of.role = process_role::wrapper;
  else if (out.interpreter == language::none && is_tool_name(name)) of.role = process_role::tool;
  else of.role = process_role::program;
}

}  // namespace instance_guard::detail
