// layer 3: what one pid_lockfile knows: its slot, its record, who refused it, who was before it.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "../pid_lockfile_types.hpp"
#include "lock_fault.hpp"
#include "lock_name.hpp"
#include "lock_slot.hpp"
#include "without_throwing.hpp"

namespace instance_guard::detail {

struct lock_session {
  lock_name name = {};
  lock_options options = {};
  std::filesystem::path path = {};
  lock_record record = {};  ///< what the file says of this process
  /// And of its wardens besides the one in the record: only user, warden and control group. The gate guards them.
  std::array<killed_holder, 4> further_wardens = {};
  std::optional<lock_record> holder = {};
  std::optional<lock_record> recovered = {};
  lock_fault fault = {};
  std::string explanation = {};
  int slot = -1;
  unsigned generation = 0;

  /// The slot, if it still is the one that this session took, in the process that took it.
  lock_slot* held() const noexcept {
    lock_slot* mine = held_without_a_call();
    return mine != nullptr && owned_here(*mine) ? mine : nullptr;
  }

  /// The same without a system call: a child of vfork, which shares its parent's memory, passes
  /// too.
  lock_slot* held_without_a_call() const noexcept {
    if (slot < 0) return nullptr;
    lock_slot& mine = lock_slots[slot];
    if (mine.generation.load(std::memory_order_relaxed) != generation ||
        mine.state.load(std::memory_order_acquire) == lock_slot::free)
      return nullptr;
    const bool has_page = lock_owner_page.load(std::memory_order_relaxed) != nullptr;
    return (has_page ? !is_forked_copy() : owned_here(mine)) ? &mine : nullptr;
  }
};

/// Of a name that does not follow the rule.
inline std::string bad_name_text(std::string_view name) {
  std::string shown;
  for (const char c : name.substr(0, 64)) shown += c > 0x20 && c < 0x7f ? c : '?';
  return joined({"\"", shown, name.size() > 64 ? "...\"" : "\"", " is no name for a lock"});
}

}  // namespace instance_guard::detail
