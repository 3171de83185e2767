// layer 4: the words of a census, and how a process is put into a finding.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "census_view.hpp"
#include "container_id.hpp"
#include "printable_text.hpp"

namespace instance_guard::detail {

/// "1 zombie", "3 zombies".
inline std::string counted(std::size_t count, std::string_view one, std::string_view many = {}) {
  std::string text = std::to_string(count) + " ";
  if (count == 1) return text.append(one);
  return many.empty() ? text.append(one) + "s" : text.append(many);
}

/// "8.0 GB", "142 MB"; units of 1024, rounded.
inline std::string memory_text(std::uint64_t bytes) {
  constexpr const char* units[] = {" B", " kB", " MB", " GB", " TB"};
  std::size_t unit = 0;
  std::uint64_t one = 1;
  for (; unit < 4 && bytes * 2 >= one * 1999; ++unit) one <<= 10;  // 999.5 and more is one of the next
  const std::uint64_t tenths = (bytes * 10 + one / 2) / one;
  if (unit >= 3 && tenths < 100) return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + units[unit];
  return std::to_string((bytes + one / 2) / one) + units[unit];
}

/// The first bytes of a printable text, never half a character.
inline std::string shortened(std::string text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0U) == 0x80U) --limit;
  text.resize(limit);
  return text;
}

/// A word that a shell reads back as it is.
inline std::string pasteable(std::string_view word) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._:-/+=%,";
  if (!word.empty() && word.find_first_not_of(plain) == std::string_view::npos) return std::string(word);
  const bool harmless = escaped(word) == word;
  std::string quoted;
  for (const char c : word) {
    if (c == '\'') quoted += harmless ? "'\\''" : "\\'";
    else if (c == '\\' && !harmless) quoted += "\\\\";
    else quoted += c;
  }
  return harmless ? "'" + quoted + "'" : "$'" + escaped(quoted) + "'";
}

/// "pid 812 (python3)".
inline std::string named(const process_info& process) {
  return "pid " + std::to_string(process.id.pid) + " (" + escaped(process.name()) + ")";
}

/// "pid 812 (worker.py)": by what it runs, where that is known.
inline std::string named(const census_process& of) {
  if (of.program.key.empty()) return named(*of.info);
  return "pid " + std::to_string(of.pid()) + " (" + of.program.shown + ")";
}

inline census_entry entry_of(const census_process& of) {
  census_entry entry;
  entry.process = *of.info;
  entry.name = of.info->name();
  entry.arguments = of.own_arguments();
  entry.executable = of.image->executable.path;
  entry.working_directory = of.details->working_directory.path;
  entry.managed_by = of.manager();
  return entry;
}

/// What its manager does with a process: `verb` is "stop" or "restart". Empty: it has none that would
/// start it again.
inline std::string manager_command(std::string_view verb, const process_manager& manager, pid_t pid) {
  const std::string what(verb);
  switch (manager.kind) {
    case manager_kind::unit: return "systemctl " + what + " " + pasteable(manager.name);
    case manager_kind::user_unit: return "systemctl --user " + what + " " + pasteable(manager.name);
    case manager_kind::container:
      if (!is_container_digest(manager.name)) return what + " its container, " + pasteable(manager.name);
      return "docker " + what + " " + manager.name.substr(0, 12);
    case manager_kind::supervisor: return what + " it in " + escaped(manager.name) + ", pid " + std::to_string(pid);
    default: return {};
  }
}

/// "60s", "10m", "2h".
inline std::string duration_text(std::chrono::seconds value) {
  const auto count = value.count();
  if (count >= 3600 && count % 3600 == 0) return std::to_string(count / 3600) + "h";
  if (count >= 60 && count % 60 == 0) return std::to_string(count / 60) + "m";
  return std::to_string(count) + "s";
}

/// " --min-age 60s": for who looks again, younger ones would be no ghosts. Empty: they are as old.
inline std::string age_option(const census_options& options) {
  if (options.min_age >= census_options().min_age) return {};
  return " --min-age " + duration_text(std::max(options.min_age, std::chrono::seconds(0)));
}

/// "instance-guard reap 60211 60345": `words` are the options that make them ghosts.
inline std::string reap_command(const std::vector<pid_t>& pids, const std::string& words) {
  std::string command = "instance-guard reap";
  for (const pid_t each : pids) command += " " + std::to_string(each);
  return command + words;
}

/// Commands to type, each once.
struct remedy_text {
  std::string text = {};
  std::vector<std::string> told = {};
  void add(std::string command) {
    if (command.empty() || std::find(told.begin(), told.end(), command) != told.end()) return;
    text += (text.empty() ? "" : "; ") + command;
    told.push_back(std::move(command));
  }
};

/// What ends these: those that somebody would start again by their managers, all others by identity.
inline std::string ending_remedy(const std::vector<const census_process*>& all, const std::string& words) {
  remedy_text result;
  std::vector<pid_t> pids;
  for (const census_process* each : all)
    if (manager_command("stop", each->manager(), each->pid()).empty()) pids.push_back(each->pid());
  if (!pids.empty()) result.add(reap_command(pids, words));
  for (const census_process* each : all) result.add(manager_command("stop", each->manager(), each->pid()));
  return result.text;
}

}  // namespace instance_guard::detail
