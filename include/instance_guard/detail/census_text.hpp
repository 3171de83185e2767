// layer 4: the words of a census, and how a process is put into a finding.
#pragma once

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
  const std::string safe = printable(word);
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._:-/+=%,";
  if (!safe.empty() && safe.find_first_not_of(plain) == std::string::npos) return safe;
  std::string result = "'";
  for (const char c : safe) {
    if (c == '\'') result += "'\\''";
    else result += c;
  }
  return result + "'";
}

/// "pid 812 (python3)".
inline std::string named(const process_info& process) {
  return "pid " + std::to_string(process.id.pid) + " (" + printable(process.name()) + ")";
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

/// What starts a managed process again, or ends one that nobody manages.
inline std::string restart_command(const process_manager& manager, pid_t pid) {
  switch (manager.kind) {
    case manager_kind::unit: return "systemctl restart " + pasteable(manager.name);
    case manager_kind::user_unit: return "systemctl --user restart " + pasteable(manager.name);
    case manager_kind::container:
      if (!is_container_digest(manager.name)) return "restart its container, " + pasteable(manager.name);
      return "docker restart " + manager.name.substr(0, 12);
    case manager_kind::guard: return "instance-guard stop " + pasteable(manager.name);
    default: return "instance-guard reap " + std::to_string(pid);
  }
}

/// "instance-guard reap 60211 60345".
inline std::string reap_command(const std::vector<pid_t>& pids) {
  std::string command = "instance-guard reap";
  for (const pid_t each : pids) command += " " + std::to_string(each);
  return command;
}

}  // namespace instance_guard::detail
