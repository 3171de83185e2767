// layer 2: who descends from whom, for people and programs that want to know.
//
// A look at /proc while processes come and go: it informs, and ends nobody. Allocates.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "../platform/platform.hpp"
#include "../process_identity.hpp"

namespace instance_guard::detail {

/// All processes of a look, ascending by pid.
struct process_list {
  struct entry {
    platform::process_stat facts = {};
    bool below = false;  ///< is a root of the last question, or descends from one
  };
  entry* all = nullptr;  ///< of malloc: a vector of a type of our own takes a compiler long
  std::size_t count = 0;
  std::size_t room = 0;
  bool is_read = false;
  bool out_of_memory = false;

  process_list() noexcept = default;
  process_list(const process_list&) = delete;
  process_list& operator=(const process_list&) = delete;
  ~process_list() { std::free(all); }

  /// The entry with this pid, or null.
  entry* find(pid_t pid) noexcept {
    std::size_t low = 0;
    std::size_t high = count;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (all[middle].facts.pid < pid) low = middle + 1;
      else high = middle;
    }
    return low < count && all[low].facts.pid == pid ? &all[low] : nullptr;
  }

  bool grow() noexcept {
    const std::size_t more = room == 0 ? 256 : 2 * room;
    void* const memory = std::realloc(all, more * sizeof(entry));
    out_of_memory = memory == nullptr;
    if (out_of_memory) return false;
    all = static_cast<entry*>(memory);
    room = more;
    return true;
  }

  static bool add(pid_t pid, void* context) noexcept {
    auto& list = *static_cast<process_list*>(context);
    entry one;
    if (platform::read_process_stat(pid, one.facts) != 0) return true;
    if (list.count == list.room && !list.grow()) return false;
    // /proc lists ascending; should it not, the entry goes to its place.
    std::size_t at = list.count++;
    for (; at > 0 && list.all[at - 1].facts.pid > pid; --at) list.all[at] = list.all[at - 1];
    list.all[at] = one;
    return true;
  }
};

/// Living descendants of the `root_count` processes at `roots`, those themselves left out, oldest first, as of the
/// first question to this list. Errors: of reading /proc, not_enough_memory; then what was found until then.
inline std::vector<process_identity> descendants_of(const pid_t* roots, std::size_t root_count, process_list& list,
                                                    std::error_code& ec) {
  if (!list.is_read) {
    list.is_read = true;
    char buffer[8192];
    const int result = platform::for_each_process(buffer, sizeof buffer, &process_list::add, &list);
    if (result < 0) ec = system_error(result);
    if (list.out_of_memory) ec = std::make_error_code(std::errc::not_enough_memory);
  }
  for (std::size_t i = 0; i < list.count; ++i) list.all[i].below = false;
  for (std::size_t i = 0; i < root_count; ++i)
    if (process_list::entry* entry = list.find(roots[i])) entry->below = true;
  std::vector<process_identity> found;
  process_identity who = process_identity::self();
  for (bool more = true; more;) {
    more = false;
    for (std::size_t at = 0; at < list.count; ++at) {
      process_list::entry& each = list.all[at];
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

/// The same as of now.
inline std::vector<process_identity> descendants_of(const pid_t* roots, std::size_t root_count, std::error_code& ec) {
  process_list list;
  return descendants_of(roots, root_count, list, ec);
}

}  // namespace instance_guard::detail
