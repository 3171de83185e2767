// layer 4: duplicates: two of what should run once.
//
// Wrappers and workers are one instance with the program that they wait for, or work for. Tools
// that people and editors run many of are none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "census_git.hpp"
#include "census_manager.hpp"
#include "census_orphan.hpp"
#include "census_settings.hpp"
#include "census_stale.hpp"
#include "census_text.hpp"
#include "census_view.hpp"

namespace instance_guard::detail {

/// One running instance of a program, by the process above its workers.
struct instance {
  std::size_t index = 0;  ///< into census_view::all
  int rank = 0;           ///< 2: a service manager's, 1: a guard's, 0: nobody's or a person's
  bool orphan = false;
  bool stale = false;
  std::string repository = {};  ///< and the place in it: equal in another checkout
};

inline int rank_of(const process_manager& manager) noexcept {
  if (manager.kind == manager_kind::guard) return 1;
  return manager.is_service() ? 2 : manager.holds.empty() ? 0 : 1;
}

/// Could run twice by mistake, by what it runs.
inline bool may_be_duplicate(const census_process& of) {
  if (!of.visible || !of.alive() || of.ancestor || of.ignored || of.declared) return false;
  if (of.role != process_role::program || of.program.key.empty()) return false;
  return !is_session_tool(of.program.module ? of.program.given : of.program.path) && !is_meant_to_stay(of);
}

/// Nobody's window, and still there.
inline bool is_no_window(const census_process& of) { return of.manager().kind != manager_kind::desktop && of.alive(); }

inline bool same_key(const census_process& a, const census_process& b) noexcept {
  return a.info->user == b.info->user && a.program.key == b.program.key;
}

inline bool same_program(const census_process& a, const census_process& b) {
  return same_key(a, b) && a.origin().container == b.origin().container &&
         a.origin().pid_namespace == b.origin().pid_namespace;
}

/// The one that another was started by to share its work, or null. Where both have one root
/// directory their key is the same file, and it is not asked in which container each is.
inline const census_process* master_of(const census_view& view, const census_process& of) {
  const census_process* found = nullptr;
  const census_process* at = view.parent(of);
  for (int depth = 0; depth < 256 && at != nullptr; ++depth, at = view.parent(*at))
    if (same_key(*at, of) && may_be_duplicate(*at) && is_no_window(*at) &&
        ((at->same_root && of.same_root) || same_program(*at, of)))
      found = at;
  return found;
}

/// Started by a person, a timer, an agent, or left alone: not by another program for its own use.
inline bool is_independent(const census_view& view, const census_process& of) {
  const census_process* at = &of;
  for (int depth = 0; depth < 256; ++depth) {
    if (is_adopted(view, *at)) return true;
    at = view.parent(*at);
    if (at == nullptr) return true;
    if (at->role == process_role::tool) return false;
    if (at->role == process_role::program && at->program.interpreter != language::shell) return false;
    if (at->role == process_role::unknown && at->visible) return false;
    if (at->role != process_role::wrapper && at->role != process_role::program) return true;
  }
  return false;
}

/// Equal for members of one pool: of one job, of one unit, of one supervisor, of one shell script.
inline bool is_one_pool(const census_view& view, const census_process& a, const census_process& b) {
  if (a.info->group == b.info->group && a.info->group > 0) return true;
  const process_manager& first = a.manager();
  const process_manager& second = b.manager();
  if (first.kind == second.kind && first.is_service() && first.kind != manager_kind::cron) {
    if (first.kind == manager_kind::supervisor) return first.process == second.process;
    if (first.name == second.name) return true;
  }
  const census_process* parent = view.parent(a);
  return parent != nullptr && parent == view.parent(b) && !is_reaper(*parent) && parent->role != process_role::shell &&
         parent->role != process_role::session && parent->role != process_role::agent;
}

/// Two of a template: "worker@1.service" and "worker@2.service".
inline bool is_one_template(const process_manager& a, const process_manager& b) noexcept {
  const std::size_t at = a.name.find('@');
  return at != std::string::npos && a.name.substr(0, at + 1) == b.name.substr(0, at + 1);
}

/// The words that are no options, in order; `values`: and those that come with an option ("--port=81").
inline std::vector<std::string_view> words_of(const std::vector<std::string>& arguments, bool values) {
  std::vector<std::string_view> result;
  for (const std::string& each : arguments)
    if (!each.empty() && (each.front() != '-' || (values && each.find('=') != std::string::npos)))
      result.push_back(each);
  return result;
}

/// The same job, perhaps with other options. What an installed runner runs is in its words; any
/// program's first word may be a subcommand.
inline bool is_same_job(const census_process& a, const census_process& b) {
  const auto& first = a.program.rest;
  const auto& second = b.program.rest;
  if (a.program.generic || b.program.generic)
    return words_of(first, true) == words_of(second, true) &&
           a.details->working_directory.path == b.details->working_directory.path;
  const auto subcommand = [](const std::vector<std::string>& list) {
    return list.empty() || list.front().empty() || list.front().front() == '-' ? std::string_view()
                                                                               : std::string_view(list.front());
  };
  return subcommand(first) == subcommand(second);
}

inline bool has_same_arguments(const census_process& a, const census_process& b) {
  if (a.program.rest != b.program.rest) return false;
  if (a.details->working_directory.path == b.details->working_directory.path) return true;
  return !a.program.generic && words_of(a.program.rest, false).empty() && !(works_elsewhere(a) && works_elsewhere(b));
}

/// "+--debug -x": what one has and another has not.
inline std::string argument_difference(const census_process& of, const census_process& than) {
  std::string text;
  const auto missing = [&](char sign, const std::vector<std::string>& from, const std::vector<std::string>& in) {
    for (const std::string& each : from)
      if (std::find(in.begin(), in.end(), each) == in.end() && text.size() < 60)
        text += (text.empty() ? "" : " ") + std::string(1, sign) + shortened(escaped(each), 40);
  };
  missing('+', of.program.rest, than.program.rest);
  missing('-', than.program.rest, of.program.rest);
  return text;
}

/// The place of a script in its repository; empty: it is in none.
inline std::string place_in_repository(const census_process& of, const census_view& view) {
  const census_program& program = of.program;
  if (program.interpreter == language::none || program.generic || program.path.empty()) return {};
  const git_checkout checkout = find_checkout(program.path, of.info->user, view.slow);
  if (checkout.root.empty() || checkout.root.size() >= program.path.size()) return {};
  const std::string repository = repository_of(checkout, of.info->user, view.slow);
  return repository.empty() ? std::string() : repository + "//" + folded(program.path).substr(checkout.root.size());
}

/// What may be one of several: the topmost of each pool, but those that are alone in what they run.
/// Not known yet is who manages them.
inline std::vector<instance> find_candidates(const census_view& view, const std::vector<left_process>& left,
                                             const std::vector<stale_code>& code) {
  std::vector<instance> all;
  std::map<std::pair<uid_t, std::string_view>, std::size_t> like;
  std::map<std::pair<uid_t, std::string>, std::size_t> beside;
  for (std::size_t i = 0; i < view.all.size(); ++i) {
    const census_process& of = view.all[i];
    if (!may_be_duplicate(of) || master_of(view, of) != nullptr) continue;
    all.push_back({i, 0, left[i].is == left_as::orphan, static_cast<bool>(code[i]), place_in_repository(of, view)});
    ++like[{of.info->user, of.program.key}];
    if (!all.back().repository.empty()) ++beside[{of.info->user, all.back().repository}];
  }
  const auto is_alone = [&](const instance& each) {
    const census_process& of = view.all[each.index];
    return like[{of.info->user, of.program.key}] == 1 &&
           (each.repository.empty() || beside[{of.info->user, each.repository}] == 1);
  };
  all.erase(std::remove_if(all.begin(), all.end(), is_alone), all.end());
  return all;
}

/// All instances, one for each pool.
inline std::vector<instance> find_instances(const census_view& view, const std::vector<left_process>& left,
                                            const std::vector<stale_code>& code) {
  std::vector<instance> result;
  std::map<std::string_view, std::vector<std::size_t>> of_key;  // into result
  for (instance& each : find_candidates(view, left, code)) {
    const census_process& of = view.all[each.index];
    if (!is_no_window(of)) continue;
    const int rank = each.rank = rank_of(of.manager());
    if (rank == 0 && !is_independent(view, of)) continue;
    std::vector<std::size_t>& like = of_key[of.program.key];
    const bool known = std::any_of(like.begin(), like.end(), [&](std::size_t at) {
      const census_process& other = view.all[result[at].index];
      return same_program(other, of) && is_one_pool(view, other, of);
    });
    if (known) continue;
    like.push_back(result.size());
    result.push_back(std::move(each));
  }
  return result;
}

/// Whether `extra` should not run beside `keep`, and how bad that is; note: it may.
inline severity judge_pair(const census_view& view, const instance& keep, const instance& extra) {
  const census_process& a = view.all[keep.index];
  const census_process& b = view.all[extra.index];
  if (keep.rank > extra.rank) return is_same_job(a, b) ? severity::critical : severity::note;
  const bool same = a.program.key == b.program.key && has_same_arguments(a, b) && !has_other_settings(a, b);
  if (keep.rank == 2) return same && !is_one_template(a.manager(), b.manager()) ? severity::warning : severity::note;
  if (keep.rank == 1) return severity::note;
  if (keep.orphan && extra.orphan) return severity::note;
  // Of a program that is installed for everybody each may have one open.
  if (same && !a.program.generic) return severity::warning;
  return extra.orphan && is_same_job(a, b) ? severity::warning : severity::note;
}

inline std::string_view how_managed(const instance& one, const census_process& of) {
  if (one.rank == 2) return "managed";
  if (one.rank == 1) return "under a guard";
  if (one.orphan) return "left over";
  return of.manager().kind == manager_kind::agent ? "by an agent" : "by hand";
}

/// Why the first of a set is the one to keep: the order of judge_set, in words.
inline std::string_view why_to_keep(const instance& keep, const census_process& kept, const instance& next) {
  if (keep.rank != next.rank) return how_managed(keep, kept);
  if (keep.orphan != next.orphan) return "not left over";
  if (keep.stale != next.stale) return "runs the current code";
  return "older";
}

/// One ghost of a set: the first is kept.
inline void report_duplicate(census_view& view, const instance& keep, const std::vector<instance>& extra,
                             severity level, const census_options& options, census& out) {
  ghost one;
  one.kind = ghost_kind::duplicate;
  one.level = level;
  const census_process& kept = view.all[keep.index];
  one.user = kept.info->user;
  one.program = kept.program.shown;
  census_entry first = entry_of(kept);
  first.keep = true;
  one.processes.push_back(std::move(first));
  std::vector<const census_process*> ending;
  bool elsewhere = false, differs = false, guarded = !kept.manager().holds.empty() || keep.rank == 1;
  for (const instance& each : extra) {
    census_process& of = view.all[each.index];
    census_entry entry = entry_of(of);
    entry.difference = argument_difference(of, kept);
    differs = differs || !entry.difference.empty();
    if (of.program.key != kept.program.key) {
      elsewhere = true;
      entry.proof.push_back({"other_checkout", of.program.path});
    }
    if (each.orphan) entry.proof.push_back({"left_over", "true"});
    guarded = guarded || !of.manager().holds.empty();
    of.reported = of.extra = true;
    ending.push_back(&of);
    one.processes.push_back(std::move(entry));
  }
  one.headline = one.program + " runs " + std::to_string(extra.size() + 1) + " times";
  one.why = elsewhere                                    ? "same script in another checkout, same user, "
            : kept.program.interpreter == language::none ? "same program, same user, "
                                                         : "same script, same user, ";
  const std::string_view mine = how_managed(keep, kept);
  const std::string_view theirs = how_managed(extra.front(), view.all[extra.front().index]);
  const std::string_view because = why_to_keep(keep, kept, extra.front());
  if (mine == theirs)
    one.why += "each " + std::string(mine) + ", kept is the one that " + (because == "older" ? "is " : "") +
               std::string(because);
  else one.why += "one " + std::string(mine) + " and one " + std::string(theirs);
  if (differs) one.why += ", with other arguments";
  one.why += guarded ? "; not each holds the guard" : "; neither holds a guard, so nothing stops both";
  one.proof = {{"program", kept.program.path}, {"kept_because", std::string(because)}};
  one.remedy = ending_remedy(ending, age_option(options));
  out.ghosts.push_back(std::move(one));
}

/// Those of `all` that are one program; the best to keep comes first.
inline void judge_set(census_view& view, std::vector<instance> set, const census_options& options, census& out) {
  // What is young and nobody's may be somebody's next move.
  set.erase(std::remove_if(set.begin(), set.end(),
                           [&](const instance& each) {
                             const census_process& of = view.all[each.index];
                             return of.reported || (each.rank < 2 && view.age(of) < options.min_age);
                           }),
            set.end());
  if (set.size() < 2) return;
  std::stable_sort(set.begin(), set.end(), [&](const instance& a, const instance& b) {
    const auto order = [&](const instance& each) {
      return std::make_tuple(-each.rank, each.orphan, each.stale, view.all[each.index].info->id.start_time);
    };
    return order(a) < order(b);
  });
  std::vector<bool> taken(set.size());
  for (std::size_t keep = 0; keep < set.size(); ++keep) {
    if (taken[keep]) continue;
    std::vector<instance> extra;
    severity level = severity::note;
    for (std::size_t i = keep + 1; i < set.size(); ++i) {
      const severity found = taken[i] ? severity::note : judge_pair(view, set[keep], set[i]);
      if (found == severity::note) continue;
      taken[i] = true;
      extra.push_back(set[i]);
      level = std::max(level, found);
    }
    if (!extra.empty()) report_duplicate(view, set[keep], extra, level, options, out);
  }
}

/// Which commit each of a duplicate runs, where that can be told: not of files that were replaced otherwise.
inline void add_commits(const census_process& of, const stale_code& code, census_entry& entry) {
  const git_move& git = code.git;
  if (git.how == git_move::reading::moved) {
    entry.proof.push_back({"commit_at_start", git.from});
    entry.proof.push_back({"commit_now", git.to});
  } else if (!code && git.how == git_move::reading::nothing && !git.to.empty() &&
             is_of_checkout(code.checkout, source_place(of), git.to, of.info->user) == is_tracked::yes) {
    entry.proof.push_back({"commit_now", git.to});
  }
}

/// User, container, pid namespace, and what runs there.
using program_place = std::tuple<uid_t, std::string, std::uint64_t, std::string>;

inline void find_duplicates(census_view& view, const std::vector<left_process>& left,
                            const std::vector<stale_code>& code, const census_options& options, census& out) {
  std::vector<instance> all = find_instances(view, left, code);
  const auto where = [&](const instance& each, const std::string& key) {
    const census_process& of = view.all[each.index];
    return program_place(of.info->user, of.origin().container, of.origin().pid_namespace, key);
  };
  std::map<program_place, std::vector<instance>> programs;
  for (const instance& each : all) programs[where(each, view.all[each.index].program.key)].push_back(each);
  // A shell script that starts a program is seen again by what it starts.
  const auto is_shell = [&](const std::vector<instance>& set) {
    return view.all[set.front().index].program.interpreter == language::shell;
  };
  for (auto& [key, set] : programs)
    if (!is_shell(set)) judge_set(view, set, options, out);
  std::vector<const census_process*> above;
  for (const census_process& each : view.all)
    for (const census_process* at = each.extra ? view.parent(each) : nullptr; at != nullptr; at = view.parent(*at))
      above.push_back(at);
  for (auto& [key, set] : programs)
    if (is_shell(set) && std::none_of(set.begin(), set.end(), [&](const instance& each) {
          return std::find(above.begin(), above.end(), &view.all[each.index]) != above.end();
        }))
      judge_set(view, set, options, out);
  // Other checkouts of the same repository.
  std::map<program_place, std::vector<instance>> repositories;
  for (instance& each : all) {
    if (!each.repository.empty()) repositories[where(each, each.repository)].push_back(each);
  }
  for (auto& [key, set] : repositories) {
    bool differ = false;
    for (const instance& each : set)
      differ = differ || view.all[each.index].program.key != view.all[set.front().index].program.key;
    if (differ) judge_set(view, set, options, out);
  }
  for (ghost& one : out.ghosts)
    for (census_entry& entry : one.processes)
      if (const census_process* of = view.find(entry.process.id.pid);
          one.kind == ghost_kind::duplicate && of != nullptr)
        add_commits(*of, code[static_cast<std::size_t>(of - view.all.data())], entry);
}

}  // namespace instance_guard::detail
