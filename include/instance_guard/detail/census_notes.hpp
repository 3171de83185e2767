// layer 4: what is worth knowing and no ghost, and what could not be seen.
#pragma once

#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "age_text.hpp"
#include "census_duplicate.hpp"
#include "census_orphan.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

inline std::string described(const census_view& view, const census_process& of) {
  const std::string program = of.program.shown.empty() ? escaped(of.info->name()) : of.program.shown;
  return program + " (pid " + std::to_string(of.pid()) + ", " + age_text(view.age(of)) + ", " + of.manager().text() +
         ")";
}

inline void add_note(census& out, note_kind kind, std::string text, const census_process& of) {
  note one;
  one.kind = kind;
  one.text = std::move(text);
  one.processes.push_back(entry_of(of));
  out.notes.push_back(std::move(one));
}

inline void note_left(const census_view& view, const std::vector<left_process>& left, const census_options& options,
                      census& out) {
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    const census_process& of = view.all[i];
    if (of.reported || of.ignored || view.age(of) < options.min_age) continue;
    if (left[i].is == left_as::perhaps_used)
      add_note(
          out, note_kind::living_agent,
          described(view, of) + " was left by its parent; a living " + escaped(of.manager().session) + " may use it",
          of);
    if (left[i].is == left_as::detached)
      add_note(out, note_kind::detached, described(view, of) + " is detached: on purpose, it seems", of);
  }
}

inline void note_long_running(const census_view& view, const std::vector<left_process>& left,
                              const census_options& options, census& out) {
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    const census_process& of = view.all[i];
    if (!of.visible || !of.alive() || of.ancestor || of.ignored || of.reported) continue;
    if (of.role != process_role::program || left[i].is != left_as::nothing) continue;
    if (view.age(of) < options.older_than || rank_of(of.manager()) > 0 || !of.alive()) continue;
    if (of.manager().kind == manager_kind::program || of.manager().kind == manager_kind::desktop) continue;
    if (of.manager().kind == manager_kind::nobody && is_system_file(of.image->executable.path)) continue;
    const census_process* parent = view.parent(of);
    if (parent != nullptr && parent->role == process_role::program && view.age(*parent) >= options.older_than) continue;
    add_note(out, note_kind::long_running, described(view, of) + " runs for a long time, and no service is its", of);
  }
}

inline void note_unseen(const census_view& view, const census_options& options, census& out) {
  const uid_t user = ::geteuid();
  std::size_t others = 0, denied = 0;
  for (const census_process& each : view.all) {
    if (each.info->kernel_thread || each.ended) continue;
    ++out.processes;
    if (!options.all_users && each.info->user != user) {
      ++others;
      continue;
    }
    if (each.image->executable_fault == std::errc::permission_denied) ++denied;
  }
  out.processes -= others;
  others += view.table->unreadable();
  out.unseen = others;
  if (others > 0)
    out.blind_spots.push_back({"other_users", counted(others, "process", "processes") + " of other users", others});
  if (view.table->hides_others())
    out.blind_spots.push_back({"hidden", "processes of other users are hidden (hidepid)", 0});
  if (denied > 0)
    out.blind_spots.push_back(
        {"denied", "what " + counted(denied, "process runs", "processes run") + " can't be read", denied});
  if (options.all_users && (denied > 0 || others > 0 || view.table->hides_others())) out.complete = false;
}

}  // namespace instance_guard::detail
