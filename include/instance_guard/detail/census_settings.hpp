// layer 4: what tells two runs of one command from each other: their environment, and the directory they work in.
//
// Values are only compared, never told or obeyed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "census_path.hpp"
#include "census_view.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

/// Comes from the terminal, the session, the shell or the service manager: nothing that somebody sets for one program.
inline bool is_of_session(std::string_view variable) noexcept {
  constexpr std::string_view names[] = {"_",
                                        "PWD",
                                        "OLDPWD",
                                        "SHLVL",
                                        "COLUMNS",
                                        "LINES",
                                        "TERM",
                                        "COLORTERM",
                                        "PATH",
                                        "MANPATH",
                                        "HOME",
                                        "USER",
                                        "LOGNAME",
                                        "SHELL",
                                        "MAIL",
                                        "HOSTNAME",
                                        "LANG",
                                        "LANGUAGE",
                                        "EDITOR",
                                        "VISUAL",
                                        "PAGER",
                                        "PS1",
                                        "TMPDIR",
                                        "DISPLAY",
                                        "XAUTHORITY",
                                        "INSIDE_EMACS",
                                        "NOTIFY_SOCKET",
                                        "STY",
                                        "WINDOW",
                                        "INVOCATION_ID",
                                        "JOURNAL_STREAM",
                                        "SESSION_MANAGER",
                                        "DEBUG",
                                        "VERBOSE",
                                        "NO_COLOR",
                                        "MANAGERPID",
                                        "MAINPID",
                                        "WATCHDOG_PID",
                                        "LISTEN_PID",
                                        "AI_AGENT",
                                        "PYTHONUNBUFFERED",
                                        "NODE_OPTIONS"};
  if (is_one_of(variable, names)) return true;
  for (const std::string_view begin :
       {"__",          "LC_",       "LS_",     "LESS",     "XDG_",        "SSH_",
        "TMUX",        "DBUS_",     "GPG_",    "TERM_",    "TERMINAL_",   "VTE_",
        "KITTY_",      "GNOME_",    "KDE_",    "KONSOLE_", "ITERM_",      "WEZTERM_",
        "ALACRITTY_",  "GHOSTTY_",  "TILIX_",  "GUAKE_",   "TERMINATOR_", "ROXTERM_",
        "BYOBU_",      "WT_",       "WSL",     "VSCODE_",  "VIRTUAL_ENV", "CONDA_",
        "PYENV_",      "NVM_",      "UV_",     "npm_",     "CLAUDE",      "CODEX_",
        "GEMINI_",     "CURSOR_",   "RUNNER_", "JENKINS_", "GITHUB_",     "SUDO_",
        "GIT_",        "GTK_",      "QT_",     "BASH_",    "ZSH",         "HIST",
        "FZF_",        "STARSHIP_", "DIRENV_", "MISE_",    "SYSTEMD_",    "MEMORY_PRESSURE_",
        "ZELLIJ",      "WAYLAND_",  "WINDOW",  "DESKTOP_", "GIO_",        "INSTANCE_GUARD_",
        "CREDENTIALS_"})
    if (starts_with(variable, begin)) return true;
  return false;
}

/// "NAME=value" of each variable that somebody may have set for it, sorted; null: they can't be read, or are too many.
inline std::unique_ptr<std::vector<std::string>> read_settings(const census_process& of) {
  struct context {
    std::vector<std::string> found = {};
    std::size_t room = std::size_t{64} << 10;
    std::error_code fault = {};
    static bool entry(const char* text, std::size_t size, void* self) noexcept {
      auto* here = static_cast<context*>(self);
      const std::string_view each(text, size);
      const std::size_t sign = each.find('=');
      if (sign == std::string_view::npos || sign == 0 || is_of_session(each.substr(0, sign))) return true;
      if (size > here->room) here->fault = std::make_error_code(std::errc::value_too_large);
      here->room -= std::min(size, here->room);
      if (!here->fault) without_throwing(here->fault, [&] { here->found.emplace_back(each); });
      return !here->fault;
    }
  } here;
  // Of what waits in the kernel the memory may not be had; see table_patience.
  platform::process_view process;
  if (of.info->state == process_state::waiting || platform::open_process(of.pid(), process) != 0) return {};
  std::error_code ec;
  char buffer[16'384];
  const bool meant = process_identity::of(of.pid(), ec) == of.info->id && !ec;
  const int result = meant ? platform::view_environment(process, buffer, sizeof buffer, &context::entry, &here) : -1;
  platform::close_process(process);
  keep_fault(*of.view, here.fault);
  if (result < 0 || here.fault) return {};
  std::sort(here.found.begin(), here.found.end());
  return std::make_unique<std::vector<std::string>>(std::move(here.found));
}

/// Of one that is compared with many they are read once.
inline const std::vector<std::string>* settings_of(const census_process& of) {
  if (!of.late.settings_asked) of.late.settings = read_settings(of);
  of.late.settings_asked = true;
  return of.late.settings.get();
}

/// True if a variable has another value for one than for the other (PORT=3001, PORT=3002; also if one has no PORT):
/// they were told to do different things. False if that can't be seen.
inline bool has_other_settings(const census_process& a, const census_process& b) {
  const std::vector<std::string>* first = settings_of(a);
  const std::vector<std::string>* second = first != nullptr ? settings_of(b) : nullptr;
  if (first == nullptr || second == nullptr) return false;
  const auto differs = [](const std::vector<std::string>& list, const std::vector<std::string>& other) {
    for (const std::string& each : list) {
      if (std::binary_search(other.begin(), other.end(), each)) continue;
      const std::string begin = each.substr(0, each.find('=') + 1);
      const auto like = std::lower_bound(other.begin(), other.end(), begin);
      if (like != other.end() && starts_with(*like, begin)) return true;
      if (ends_with(begin, "PORT=")) return true;
    }
    return false;
  };
  return differs(*first, *second) || differs(*second, *first);
}

/// In a directory that says what it works on: not that of the program, nor one above it.
inline bool works_elsewhere(const census_process& of) {
  const std::string& directory = of.details->working_directory.path;
  return !directory.empty() && !of.program.path.empty() && !is_below(of.program.path, directory);
}

}  // namespace instance_guard::detail
