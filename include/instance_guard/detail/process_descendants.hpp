// layer 2: who descends from whom, for people and programs that want to know.
//
// A look at /proc while processes come and go: it informs, and ends nobody. Allocates.
#pragma once

#include <cstddef>
#include <system_error>
#include <vector>

#include "../platform/platform.hpp"
#include "../process_identity.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

/// All processes of a look, ascending by pid.
struct process_list {
  struct entry {
    platform::process_stat facts = {};
    bool below = false;  ///< is a root, or descends from one
  };
  std::vector<entry> all = {};
  std::error_code fault = {};

  /// The entry with this pid, or null.
  entry* find(pid_t pid) noexcept {
    std::size_t low = 0;
    std::size_t high = all.size();
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (all[middle].facts.pid < pid) low = middle + 1;
      else high = middle;
    }
    return low < all.size() && all[low].facts.pid == pid ? &all[low] : nullptr;
  }

  static bool add(pid_t pid, void* context) noexcept {
    auto& list = *static_cast<process_list*>(context);
    entry one;
    if (platform::read_process_stat(pid, one.facts) != 0) return true;
    without_throwing(list.fault, [&] { list.all.push_back(one); });
    // /proc lists ascending; should it not, the entry moves to its place.
    for (std::size_t i = list.all.size(); !list.fault && i > 1 && list.all[i - 2].facts.pid > pid; --i) {
      list.all[i - 1] = list.all[i - 2];
      list.all[i - 2] = one;
    }
    return !list.fault;
  }
};

/// Living descendants of `roots`, those themselves left out, oldest first. Errors: of reading
/// /proc, not_enough_memory; then what was found until then.
inline std::vector<process_identity> descendants_of(const std::vector<pid_t>& roots, std::error_code& ec) {
  process_list list;
  char buffer[8192];
  const int result = platform::for_each_process(buffer, sizeof buffer, &process_list::add, &list);
  if (result < 0) ec = system_error(result);
  if (list.fault) ec = list.fault;
  for (const pid_t root : roots)
    if (process_list::entry* entry = list.find(root)) entry->below = true;
  std::vector<process_identity> found;
  process_identity who = process_identity::self();
  for (bool more = true; more;) {
    more = false;
    for (process_list::entry& each : list.all) {
      if (each.below) continue;
      const process_list::entry* parent = list.find(each.facts.parent);
      if (parent == nullptr || !parent->below) continue;
      each.below = more = true;
      const bool ended = each.facts.state == 'X' || (each.facts.state == 'Z' && each.facts.threads <= 1);
      if (ended) continue;
      who.pid = each.facts.pid;
      who.start_time = each.facts.start_time;
      found.push_back(who);
      for (std::size_t i = found.size() - 1; i > 0 && found[i - 1].start_time > who.start_time; --i) {
        found[i] = found[i - 1];
        found[i - 1] = who;
      }
    }
  }
  return found;
}

}  // namespace instance_guard::detail
