// layer 4: whether the code that a process runs has been replaced since it started, file by file.
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "census_command.hpp"
#include "census_path.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

using wall_time = std::chrono::system_clock::time_point;

/// One way in which code was replaced.
struct code_change {
  std::string_view what = {};  ///< "executable_replaced", ...; empty: it was not
  std::string path = {};
  std::string now = {};  ///< what a link leads to
  wall_time at = {};     ///< empty: not known
  explicit operator bool() const noexcept { return !what.empty(); }
};

/// True if the pid is still that of the process of the table, and it has not executed another program since.
inline bool is_still_there(const census_process& of) noexcept {
  char path[64];
  char text[4096];
  const long size = platform::sys::readlinkat(AT_FDCWD, platform::proc_path(path, of.pid(), "exe"), text, sizeof text);
  if (size <= 0) return false;
  std::string_view now(text, static_cast<std::size_t>(size));
  const std::string_view then = of.image->executable.path;
  constexpr std::string_view deleted = " (deleted)";
  if (now != then && (!ends_with(now, deleted) || now.substr(0, now.size() - deleted.size()) != then)) return false;
  std::error_code ec;
  return process_identity::of(of.pid(), ec) == of.info->id && !ec;
}

/// When a file was put where it is.
inline wall_time placed_at(const struct stat& facts) noexcept {
  return std::chrono::system_clock::time_point(std::chrono::seconds(facts.st_ctime));
}

/// Later than the start of a process, by clocks of which one counts whole seconds.
inline bool is_later(wall_time at, const census_process& of, const census_view& view) noexcept {
  return at > of.info->started_at + std::chrono::seconds(1) && at <= view.table->taken_at() + std::chrono::seconds(1);
}

/// The executable: deleted, replaced, or moved aside for another one.
inline code_change executable_change(const census_process& of, const census_view& view) {
  const process_file& file = of.image->executable;
  struct stat running = {};
  if (file.path.empty() || starts_with(file.path, "/memfd:") || !stat_executable(of, running)) return {};
  const followed_path& before = view.follow(file.path);
  if (before.path.empty() || !S_ISREG(before.facts.st_mode) || !same_file(before.facts, running)) {
    // Not what was there a moment ago: it may be what is there now.
    const followed_path there = follow_path(file.path, view.slow);
    if (there.slow) return {};
    if (there.path.empty()) {
      if (!file.deleted) return {};
      struct stat directory = {};
      const bool known = ::stat(parent_path(file.path).c_str(), &directory) == 0;
      return {"executable_deleted", file.path, {}, known ? modified_at(directory) : wall_time()};
    }
    if (S_ISREG(there.facts.st_mode) && !same_file(there.facts, running))
      return is_still_there(of) ? code_change{"executable_replaced", file.path, {}, placed_at(there.facts)}
                                : code_change();
  }
  // "mv bot bot.old; cp new bot"
  if (of.program.interpreter != language::none || of.image->arguments.empty()) return {};
  const std::string_view started_as = base_name(of.image->arguments.front());
  if (started_as == base_name(file.path) ||
      (!starts_with(base_name(file.path), started_as) && started_as != "." && started_as != ".."))
    return {};
  const followed_path given =
      follow_path(absolute_path(of.details->working_directory.path, of.image->arguments.front()), view.slow);
  if (given.path.empty() || !given.links.empty() || !S_ISREG(given.facts.st_mode) || same_file(given.facts, running) ||
      parent_path(given.path) != parent_path(file.path) || !starts_with(base_name(file.path), base_name(given.path)) ||
      !is_later(placed_at(given.facts), of, view) || !is_still_there(of))
    return {};
  return {"executable_replaced", given.path, {}, placed_at(given.facts)};
}

/// Shared libraries that it maps, and that are other files by now.
inline std::vector<code_change> library_changes(const census_process& of, const census_view& view) {
  struct context {
    std::vector<std::string> paths = {};
    static bool mapping(const platform::mapped_file& file, void* self) noexcept {
      auto* here = static_cast<context*>(self);
      std::string_view path(file.path, file.path_size);
      constexpr std::string_view end = " (deleted)";
      if (!ends_with(path, end) || path.find(".so") == std::string_view::npos) return true;
      path.remove_suffix(end.size());
      std::error_code ec;
      without_throwing(ec, [&] {
        if (here->paths.empty() || here->paths.back() != path) here->paths.emplace_back(path);
      });
      return !ec && here->paths.size() < 256;
    }
  } here;
  platform::process_view process;
  std::vector<code_change> result;
  if (platform::open_process(of.pid(), process) != 0) return result;
  char buffer[8192];
  const int read = platform::view_mapped_files(process, buffer, sizeof buffer, &context::mapping, &here);
  platform::close_process(process);
  if (read != 0) return result;
  std::sort(here.paths.begin(), here.paths.end());
  here.paths.erase(std::unique(here.paths.begin(), here.paths.end()), here.paths.end());
  for (std::string& each : here.paths) {
    // One that is nowhere any more was perhaps unpacked for this process alone.
    const followed_path there = follow_path(each, view.slow);
    if (!there.path.empty() && S_ISREG(there.facts.st_mode))
      result.push_back({"library_replaced", std::move(each), {}, placed_at(there.facts)});
  }
  return result;
}

/// A program that looks for changes of its files itself.
inline bool reloads_itself(const census_process& of) {
  bool reloads = false;
  for (const std::string& each : of.image->arguments) {
    if (each == "--noreload") return false;
    // "manage.py runserver" of Django does it unless it is told not to.
    reloads = reloads || each == "--reload" || each == "--watch" || each == "--hot" || starts_with(each, "--watch-") ||
              (each == "runserver" && base_name(of.program.path) == "manage.py");
  }
  return reloads;
}

/// The newest source file below a directory, at most some thousand of them.
inline code_change newest_source(const std::string& directory, std::string_view end, const census_view& view, int depth,
                                 std::size_t& budget) {
  code_change newest;
  const std::unique_ptr<DIR, int (*)(DIR*)> listed(::opendir(directory.c_str()), &::closedir);
  while (listed && budget > 0) {
    const dirent* each = ::readdir(listed.get());
    if (each == nullptr) break;
    --budget;
    const std::string_view name = each->d_name;
    if (name.front() == '.' || name == "__pycache__" || name == "node_modules") continue;
    const std::string path = directory + "/" + std::string(name);
    struct stat facts = {};
    if (view.slow.contain(path) || ::lstat(path.c_str(), &facts) != 0) continue;
    code_change found;
    if (S_ISDIR(facts.st_mode) && depth > 0) found = newest_source(path, end, view, depth - 1, budget);
    else if (S_ISREG(facts.st_mode) && ends_with(name, end)) found = {"package_newer", path, {}, modified_at(facts)};
    if (found && found.at > newest.at) newest = std::move(found);
  }
  return newest;
}

/// The script, or the package that it is in: written to since the start.
inline code_change script_change(const census_process& of, const census_view& view) {
  const census_program& program = of.program;
  if (program.interpreter == language::none || program.path.empty() || reloads_itself(of)) return {};
  struct stat facts = {};
  if (::lstat(program.path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return {};
  if (is_later(modified_at(facts), of, view)) return {"script_newer", program.path, {}, modified_at(facts)};
  if (program.interpreter != language::python || program.generic) return {};
  const std::string directory = parent_path(program.path);
  struct stat init = {};
  if (base_name(program.path) != "__main__.py" && ::lstat((directory + "/__init__.py").c_str(), &init) != 0) return {};
  std::size_t budget = 4000;
  code_change newest = newest_source(directory, ".py", view, 4, budget);
  return newest && is_later(newest.at, of, view) ? newest : code_change();
}

/// True if `path` lies in a directory beside `target`: "/srv/releases/2/x" beside
/// "/srv/releases/3".
inline bool is_beside(std::string_view path, const std::string& target) {
  const std::string releases = parent_path(target);
  return releases.size() > 1 && is_below(path, releases) && !is_below(path, target) && path != releases;
}

/// Started through a link ("current") that leads elsewhere by now.
inline code_change link_change(const census_process& of, const census_view& view) {
  const census_program& program = of.program;
  const process_file& file = of.image->executable;
  const std::string& directory = of.details->working_directory.path;
  for (const passed_link& link : program.links) {
    if (link.rest.empty() || link.target.empty()) continue;
    const std::string target = follow_path(link.target, view.slow).path;
    if (target.empty()) continue;
    const code_change changed{"link_moved", link.path, target, link.made_at};
    // The executable, or where it works, tells where the link led.
    if (program.interpreter == language::none) {
      if (ends_with(file.path, "/" + link.rest) && is_beside(file.path, target) && is_later(link.made_at, of, view))
        return changed;
      continue;
    }
    if (is_beside(directory, target) && is_later(link.made_at, of, view)) return changed;
    struct stat facts = {};
    if (is_later(link.made_at, of, view) && ::stat(target.c_str(), &facts) == 0 && is_later(placed_at(facts), of, view))
      return changed;
  }
  // "cd current && python main.py": the shell wrote down how it came there.
  const std::string* way = of.image->marker("PWD");
  if (way == nullptr || !starts_with(*way, "/") || program.key.empty() || directory.empty()) return {};
  if (*way == directory) return {};
  const followed_path& now = view.follow(*way);
  for (const passed_link& link : now.links) {
    const std::string target = follow_path(link.target, view.slow).path;
    const std::string rest = link.rest.empty() ? "" : "/" + link.rest;
    if (target.empty() || !is_beside(directory, target) || !ends_with(directory, rest)) continue;
    if (parent_path(directory.substr(0, directory.size() - rest.size())) == parent_path(target) &&
        is_later(link.made_at, of, view))
      return {"link_moved", link.path, target, link.made_at};
  }
  return {};
}

}  // namespace instance_guard::detail
