// layer 3: the warden ends what its owner started by itself; see stray_scan.hpp for whom.
#pragma once

#include <new>

#include "../platform/platform.hpp"
#include "stray_scan.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Memory for the looks, and the log of them: some 140 KiB, so only once they are needed.
struct stray_memory {
  stray_buffers buffers;
  stray_report report;
};

/// Sends `number` to the owner's strays. True: none is left, or they can't be looked for.
INSTANCE_GUARD_NO_SANITIZE inline bool stray_round(warden_state& warden, int number) noexcept {
  if (!warden.marked) return true;
  if (warden.strays == nullptr) {
    void* memory = sys::mmap(sizeof(stray_memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys::is_error(memory)) return false;
    warden.strays = new (memory) stray_memory;
  }
  // Those that are left then are to be spared, and so are their orphans.
  warden.mark.may_lose_children = warden.empty;
  const int count = strays_signal(warden.mark, number, warden.strays->buffers, warden.strays->report);
  return count < 0 || (count == 0 && warden.strays->report.conclusive);
}

}  // namespace instance_guard::detail
