// layer 3: who descends from the warden, and a signal that reaches only those.
//
// A pass over /proc is no snapshot: processes come, go and change parents meanwhile, and a pid may
// be somebody else's before the pass is over. So nobody is signalled for what the pass saw alone:
// the pid of a child of the warden can't change hands before the warden reaps it; any other
// process is read again together with its parent, and held by a descriptor. Runs in the warden.
#pragma once

#include "../platform/platform.hpp"
#include "keep_mark.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// The entry of a process in an ascending list, or null.
INSTANCE_GUARD_NO_SANITIZE inline scanned* find_scanned(raw_array<scanned>& list, pid_t pid) noexcept {
  uint32_t low = 0, high = list.size();
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (list[middle].pid < pid) low = middle + 1;
    else high = middle;
  }
  return low < list.size() && list[low].pid == pid ? &list[low] : nullptr;
}

/// Takes down one process. False: there is no memory for it.
INSTANCE_GUARD_NO_SANITIZE inline bool take_down(warden_state& warden, const platform::process_stat& facts) noexcept {
  scanned entry;
  entry.pid = facts.pid;
  entry.parent = facts.parent;
  entry.start_time = facts.start_time;
  // A leader whose main thread has ended is shown as Z while its other threads live.
  entry.state = facts.state == 'Z' && facts.threads > 1 ? 'S' : facts.state;
  if (!warden.now.push(entry)) {
    warden.scan_cut = true;
    return false;
  }
  // /proc lists ascending; should it not, move the entry to its place.
  for (uint32_t i = warden.now.size() - 1; i > 0 && warden.now[i - 1].pid > warden.now[i].pid; --i) {
    const scanned other = warden.now[i - 1];
    warden.now[i - 1] = warden.now[i];
    warden.now[i] = other;
  }
  return true;
}

INSTANCE_GUARD_NO_SANITIZE inline bool scan_one(pid_t pid, void* context) noexcept {
  warden_state& warden = *static_cast<warden_state*>(context);
  platform::process_stat facts;
  if (pid == warden.self) warden.scan_complete = true;
  else if (platform::read_process_stat(pid, facts) == 0) return take_down(warden, facts);
  return true;
}

INSTANCE_GUARD_NO_SANITIZE inline bool scan_later(pid_t pid, void* context) noexcept {
  warden_state& warden = *static_cast<warden_state*>(context);
  if (!warden.to_scan.push(pid)) warden.scan_cut = true;
  return !warden.scan_cut;
}

/// True if `entry` really is a child of `parent`, and both are who the pass took them for. The
/// order of the reads counts: were the parent to end after the first, its child would get another.
INSTANCE_GUARD_NO_SANITIZE inline bool is_child_of(const scanned& entry, const scanned& parent) noexcept {
  platform::process_stat facts;
  if (platform::read_process_stat(parent.pid, facts) != 0 || facts.start_time != parent.start_time) return false;
  return platform::read_process_stat(entry.pid, facts) == 0 && facts.parent == parent.pid &&
         facts.start_time == entry.start_time;
}

/// Marks who descends from the warden. Once a descendant is always one: whoever adopts it is one
/// too, or the warden itself.
INSTANCE_GUARD_NO_SANITIZE inline void find_descendants(warden_state& warden) noexcept {
  for (scanned& each : warden.now) {
    const scanned* known = find_scanned(warden.before, each.pid);
    if (known == nullptr || known->start_time != each.start_time) continue;
    each.flags |= known->flags & (is_descendant | is_kept | is_looked_at | was_stopped | was_killed);
  }
  for (bool more = true; more;) {
    more = false;
    for (scanned& each : warden.now) {
      if ((each.flags & is_descendant) != 0) continue;
      if (each.parent != warden.self) {
        const scanned* parent = find_scanned(warden.now, each.parent);
        if (parent == nullptr || (parent->flags & is_descendant) == 0) continue;
        if (!is_child_of(each, *parent)) {
          each.parent = 0;  // seen in between: the next pass will tell
          continue;
        }
      }
      each.flags |= is_descendant;
      more = true;
    }
  }
}

/// Marks which descendants are not to be ended by this warden.
INSTANCE_GUARD_NO_SANITIZE inline void find_spared(warden_state& warden) noexcept {
  for (warden_nested& each : warden.nested)
    if (scanned* entry = find_scanned(warden.now, each.pid)) entry->flags |= is_nested_warden;
  if (scanned* entry = warden.program > 0 ? find_scanned(warden.now, warden.program) : nullptr)
    entry->flags |= is_owner | is_looked_at;
  // What another program starts, that the owner has become, is its own; its orphans are told from those of before
  // once those have ended.
  if (warden.has_program && warden.replaced != 0)
    for (scanned& each : warden.now)
      if (each.start_time >= warden.replaced &&
          ((warden.program > 0 && each.parent == warden.program) ||
           (warden.former_ended && each.parent == warden.self && each.pid != warden.program)))
        each.flags |= is_kept | is_looked_at;
  for (warden_child& each : warden.children)
    if (each.outlives)
      if (scanned* entry = find_scanned(warden.now, each.pid)) entry->flags |= is_kept | is_looked_at;
  // What hangs below a kept process, or below a nested warden, is as that one.
  for (bool more = true; more;) {
    more = false;
    for (scanned& each : warden.now) {
      if ((each.flags & is_descendant) == 0) continue;
      uint8_t flags = each.flags;
      if (const scanned* parent = find_scanned(warden.now, each.parent)) {
        flags |= parent->flags & is_kept;
        if ((parent->flags & (is_nested_warden | is_below_nested)) != 0) flags |= is_below_nested;
      }
      // Reading the environment takes the process's memory lock, which one that sleeps
      // uninterruptibly may hold: the warden must not join it. It is looked at later.
      if ((flags & (is_looked_at | is_kept)) == 0 && each.state != 'D' && each.state != 'Z') {
        flags |= is_looked_at;
        if (has_keep_mark(each.pid)) flags |= is_kept;
      }
      if (flags != each.flags) more = true;
      each.flags = flags;
    }
  }
}

/// Looks at all processes again. False: what it saw is not all, or not about the processes that
/// kill(2) means: there is no memory, or /proc can't be read, is of another pid namespace, or was
/// covered by something else. In an honest /proc the warden meets itself.
/// What was known before is kept then.
INSTANCE_GUARD_NO_SANITIZE inline bool scan(warden_state& warden) noexcept {
  if (platform::process_list_is_ours() != 0) return false;
  warden.before.swap(warden.now);
  warden.now.clear();
  warden.scan_complete = warden.scan_cut = false;
  char entries[8192];
  const int result = platform::for_each_process(entries, sizeof entries, scan_one, &warden);
  if (result != 0 || !warden.scan_complete || warden.scan_cut) {
    warden.before.swap(warden.now);
    return false;
  }
  find_descendants(warden);
  find_spared(warden);
  return true;
}

/// True if this one is to be ended by this warden.
INSTANCE_GUARD_NO_SANITIZE inline bool is_target(const scanned& entry) noexcept {
  return (entry.flags & is_descendant) != 0 && (entry.flags & (is_kept | is_nested_warden | is_owner)) == 0;
}

/// Looks at its own descendants alone, from parent to child: what that costs does not grow with the
/// host, on which a thousand wardens may do so at once. It may miss some while others come and go, but
/// none that was known before. False: it met nobody to end, or can't look; only scan() tells more.
INSTANCE_GUARD_NO_SANITIZE inline bool scan_descendants(warden_state& warden) noexcept {
  if (platform::process_list_is_ours() != 0) return false;
  warden.to_scan.clear();
  warden.scan_cut = false;
  if (platform::for_each_child(warden.self, 1, scan_later, &warden) != 0) return false;
  warden.before.swap(warden.now);
  warden.now.clear();
  uint32_t next = 0, known = 0;
  while (!warden.scan_cut) {
    if (next == warden.to_scan.size()) {
      // One whose parent has ended meanwhile may have moved to where the look had been already.
      while (known < warden.before.size() && ((warden.before[known].flags & is_descendant) == 0 ||
                                              find_scanned(warden.now, warden.before[known].pid) != nullptr))
        ++known;
      if (known == warden.before.size()) break;
      scan_later(warden.before[known++].pid, &warden);
      continue;
    }
    const pid_t pid = warden.to_scan[next++];
    platform::process_stat facts;
    if (find_scanned(warden.now, pid) != nullptr || platform::read_process_stat(pid, facts) != 0) continue;
    if (!take_down(warden, facts)) warden.scan_cut = true;
    else platform::for_each_child(pid, facts.threads, scan_later, &warden);
  }
  if (warden.scan_cut) {
    warden.before.swap(warden.now);
    return false;
  }
  find_descendants(warden);
  find_spared(warden);
  for (const scanned& each : warden.now)
    if (is_target(each)) return true;
  return false;
}

/// Sends a signal to a descendant of the last scan, if its pid is still its own. 0, or a negated
/// errno: -ESRCH when it is not, -ENOSYS where no descriptor can stand for it: then it waits until
/// its parent is dead and the warden has adopted it.
INSTANCE_GUARD_NO_SANITIZE inline int signal_scanned(warden_state& warden, const scanned& entry, int number) noexcept {
  if (entry.parent == warden.self) return sys::kill(entry.pid, number);
  int held = sys::pidfd_open(entry.pid);
  if (held == -ESRCH) return held;
  if (held < 0) {  // before Linux 5.3, or refused by a filter: its directory does as well
    char path[64];
    held = sys::open(platform::proc_path(path, entry.pid, ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (held < 0) return held == -ENOENT ? -ESRCH : -ENOSYS;
  }
  int result = -ESRCH;
  platform::process_stat facts;
  if (platform::read_process_stat(entry.pid, facts) == 0 && facts.start_time == entry.start_time)
    result = sys::pidfd_send_signal(held, number);
  sys::close(held);
  return result;
}

}  // namespace instance_guard::detail
