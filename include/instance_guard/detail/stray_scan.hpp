// layer 2: finds the strays of a program that ends, and signals them. Nobody else.
//
// A process is a stray if all of this holds, read from /proc at that moment:
//
//   1. it carries the mark: the nonce in the environment it was started with, or the mark page
//      among its mappings (a copy by fork that has not executed anything);
//   2. it started after the acquisition, has the owner's user, cgroup and pid namespace;
//   3. it carries no other guard's mark and not INSTANCE_GUARD_KEEP=1;
//   4. nobody looks after it: its parent is the owner, which ends, or another stray, or the process
//      that adopts the owner's orphans;
//   5. it is not the caller, not the owner, and no ancestor of either.
//
// Rule 4 is what spares a service that a living broker (pm2, at, a tmux server) has started in its
// client's environment. Its parent is the broker, also where the broker is an ancestor of the owner.
// So the adopter has to be known exactly, and there are three ways to know it:
//
//   - A warden that has been adopted sees it as its own parent: who adopted one orphan of the
//     owner adopts all of them (find_new_reaper in the kernel: the nearest subreaper among the
//     ancestors, else process 1). Its adopter may end meanwhile; then both move on together.
//   - An owner whose only ancestor is process 1 has no other adopter.
//   - While the owner lives, and only if there is a process that the answer decides about (marked,
//     and its parent is an ancestor of the owner or process 1), it is tried: platform::find_adopter.
//     That leaves a zombie where the adopter does not reap, but so does each stray that it adopted.
//
// Where it can't be known, nothing with such a parent is ended, and the report says so. One case
// can't be told apart: an adopter that is a broker as well (pm2 as process 1 of a container, in
// the same cgroup) and starts a service in the environment of the program. INSTANCE_GUARD_KEEP=1,
// or removing INSTANCE_GUARD_MARK, keeps such a service.
//
// A list of all processes is not a moment: one that is listed may have ended, and left a child that
// was not. Numbers are given out in turn, so after the list those given out since are looked at,
// in order, until there are none. Then every stray has been met alive, or it had ended and its
// children were looked at after it. Only where numbers start anew meanwhile, or the last one is
// not known, the look has to be repeated. This also catches what forks and ends all the time. Who executes a program or
// ends just then can't be judged: it is looked at again before the last of the new numbers.
//
// Async-signal-safe; no allocation; usable after any kind of fork. It blocks only in /proc: a
// process of the same user whose memory is locked by a hung page fault can hold up the reader.
#pragma once

#include <cerrno>

#include "stray_evidence.hpp"
#include "stray_target.hpp"

namespace instance_guard::detail {

/// One look at all processes.
class stray_look {
 public:
  INSTANCE_GUARD_NO_SANITIZE stray_look(const stray_target& target, int signal, stray_buffers& memory,
                                        stray_report& report) noexcept
      : target_(target), signal_(signal), memory_(memory), report_(report) {}

  /// The number of strays that were met, or a negated errno when processes can't be listed.
  INSTANCE_GUARD_NO_SANITIZE int run() noexcept {
    report_.unreadable = 0;
    const std::int64_t began = platform::sys::monotonic_now();
    note_kin();
    pid_t newest = platform::last_process_id();
    const int result = platform::for_each_process(memory_.directory, sizeof memory_.directory, remember_pid, this);
    look_at_remembered();
    if (result != 0) return result;
    end_found();
    // To begin anew would take as long once more.
    constexpr std::int64_t limit = 50'000'000;
    const std::int64_t looked = platform::sys::monotonic_now();
    const std::int64_t until = looked + (looked - began > limit ? looked - began : limit);
    std::int64_t pause = 100'000;
    bool complete = newest == 0 ? !vanished_ : false;
    while (newest != 0 && !complete) {
      const pid_t now = platform::last_process_id();
      // Numbers that start anew, and so many new ones that a list is shorter: look again.
      if (now < newest || now - newest > stray_buffers::max_pids) break;
      const bool all_met = now == newest;
      complete = all_met && in_transition_ == 0;
      while (newest < now) look_at(++newest);
      if (all_met && in_transition_ != 0) {
        if (met_ != 0) break;  // there is another look anyhow
        platform::sys::sleep_for(pause);
        if (pause < 5'000'000) pause *= 2;
        look_at_changing();
      }
      end_found();
      if (platform::sys::monotonic_now() > until) break;
    }
    while (follow_parents()) end_found();
    report_.conclusive = complete && !unsettled_ && in_transition_ == 0;
    for (int i = 0; i < found_; ++i)
      if (const stray_entry& each = memory_.found[i]; !each.ends && !each.descends)
        note(each, adopter_missing(each) ? stray_fate::undecided : stray_fate::supervised, 0);
    return met_;
  }

 private:
  INSTANCE_GUARD_NO_SANITIZE static bool remember_pid(pid_t pid, void* self) noexcept {
    auto* look = static_cast<stray_look*>(self);
    if (look->pid_count_ == stray_buffers::max_pids) look->look_at_remembered();
    look->memory_.pids[look->pid_count_++] = pid;
    return true;
  }

  /// Newest first: what forks and ends all the time is met before it has moved on.
  INSTANCE_GUARD_NO_SANITIZE void look_at_remembered() noexcept {
    while (pid_count_ > 0) look_at(memory_.pids[--pid_count_]);
  }

  /// Those that could not be judged before, because they were changing. Who has ended meanwhile may have left
  /// children: theirs were looked at, or have numbers that were given out since.
  INSTANCE_GUARD_NO_SANITIZE void look_at_changing() noexcept {
    const int count = in_transition_;
    in_transition_ = 0;
    for (int i = 0; i < count; ++i) look_at(memory_.changing[i]);  // what is put there again comes before i
  }

  INSTANCE_GUARD_NO_SANITIZE void look_at(pid_t pid) noexcept {
    uid_t user = 0;
    int result = platform::user_of_process(pid, user);
    if (result == 0 && user != target_.user) return;
    platform::process_view view;
    if (result == 0) result = platform::open_process(pid, view);
    if (result != 0) {
      vanished_ = true;
      return;
    }
    look_at_view(view);
    platform::close_process(view);
  }

  INSTANCE_GUARD_NO_SANITIZE void look_at_view(platform::process_view& view) noexcept {
    platform::process_stat facts;
    stray_evidence evidence;
    const int result = read_marks(view, facts, evidence);
    if (result == -ENOENT || result == -ESRCH) vanished_ = true;
    else if (result == -EAGAIN && in_transition_ < stray_buffers::max_changing)
      memory_.changing[in_transition_++] = view.pid;
    else if (result == -EAGAIN) unsettled_ = true;
    else if (result < 0) ++report_.unreadable;
    if (result != 1 || is_kin(view.pid)) return;
    stray_entry entry = entry_of(view.pid, facts);
    if (evidence.keep) return note(entry, stray_fate::kept, 0);
    if (evidence.other) return note(entry, stray_fate::other_guard, 0);
    std::uint64_t place = 0;
    if (platform::view_pid_namespace(view, place) != 0 || place != target_.pid_namespace)
      return note(entry, stray_fate::other_namespace, 0);
    if (platform::view_control_group(view, memory_.text, sizeof memory_.text, place) != 0 ||
        !target_.control_group_known || place != target_.control_group)
      return note(entry, stray_fate::other_service, 0);
    if (found_ == stray_buffers::max_found) {
      unsettled_ = true;  // no room: met again once some of these have ended
      return;
    }
    entry.descends = descends(entry);
    if (!entry.descends && is_left_alone(entry)) {
      // What has just been read, through the descriptor that the signal goes through, still holds.
      entry.ends = true;
      ++met_;
      send(view, entry);
    }
    memory_.found[found_++] = entry;
  }

  /// Applies rule 4 to what was found while it was not yet known which parents end.
  INSTANCE_GUARD_NO_SANITIZE void end_found() noexcept {
    for (bool more = true; more;) {
      more = false;
      for (int i = found_ - 1; i >= 0; --i) {  // the oldest first: a child is younger than its parent
        stray_entry& each = memory_.found[i];
        if (each.ends || each.descends) continue;
        each.descends = descends(each);
        if (each.descends) more = true;
        if (each.descends || !is_left_alone(each)) continue;
        each.ends = true;
        more = true;
        ++met_;
        signal_again(each);
      }
    }
  }

  /// A parent that ended after its child was read has left it to another. True if that was so.
  INSTANCE_GUARD_NO_SANITIZE bool follow_parents() noexcept {
    bool changed = false;
    platform::process_stat facts;
    for (int i = 0; i < found_; ++i) {
      stray_entry& each = memory_.found[i];
      if (each.ends || each.descends || platform::read_process_stat(each.pid, facts) != 0 ||
          facts.start_time != each.start_time || facts.parent == each.parent)
        continue;
      each.parent = facts.parent;
      changed = true;
    }
    return changed;
  }

  /// 1: alive, young enough, of the right user, and carries the mark. 0: not, or it has ended.
  /// Negated errno: can't be read. -EAGAIN: it executes another program just now, or is about to end
  /// and has given its memory back: until it has, its children still have it for a parent.
  INSTANCE_GUARD_NO_SANITIZE int read_marks(platform::process_view& view, platform::process_stat& facts,
                                            stray_evidence& evidence) noexcept {
    // Once more where what was read does not fit a process that is alive and well.
    for (int pass = 0; pass < 2; ++pass) {
      bool in_transition = false;
      view.thread = 0;
      int result = platform::view_stat(view, facts, &in_transition);
      if (result != 0) return result;
      if (facts.pid != view.pid || facts.start_time < target_.acquired || facts.state == 'X') return 0;
      if (facts.state == 'Z') {
        if (facts.threads <= 1) return 0;
        // A tracer may keep threads that have ended for as long as it likes.
        std::uint64_t met = 0, met_again = 0;
        result = platform::view_living_thread(view, memory_.text, sizeof memory_.text, met);
        if (result != 0) result = platform::view_living_thread(view, memory_.text, sizeof memory_.text, met_again);
        if (result != 0) return met == met_again ? 0 : -EAGAIN;  // the thread ended: there may be another
      }
      uid_t user = 0;
      result = platform::view_user(view, user);
      if (result != 0) return result;
      if (user != target_.user) return 0;
      evidence = stray_evidence{};
      result = look_for_marks(view, target_, memory_.text, sizeof memory_.text, evidence);
      // Newer kernels say "no such process" where there is no memory to look into.
      if (result == -ESRCH || result == -ENOENT) evidence.incomplete = true;
      else if (result != 0) return result;  // one that may not be read looks like one in transition
      else if (evidence.ours) return platform::view_is_process(view) ? 1 : 0;
      if (in_transition) return -EAGAIN;
      if (!evidence.incomplete) return 0;
    }
    // It may have given its memory back while it was read the last time.
    bool in_transition = false;
    const int result = platform::view_stat(view, facts, &in_transition);
    return result != 0 ? result : in_transition ? -EAGAIN : 0;
  }

  INSTANCE_GUARD_NO_SANITIZE static stray_entry entry_of(pid_t pid, const platform::process_stat& facts) noexcept {
    stray_entry entry;
    entry.pid = pid;
    entry.parent = facts.parent;
    entry.start_time = facts.start_time;
    entry.state = facts.state;
    for (std::size_t i = 0; i + 1 < sizeof entry.name; ++i) entry.name[i] = facts.name[i];
    return entry;
  }

  /// The caller, the owner and the ancestors of both: never signalled. Of the owner, whether it
  /// still is who it was.
  INSTANCE_GUARD_NO_SANITIZE void note_kin() noexcept {
    kin_ = 0;
    owner_lives_ = false;
    platform::process_stat facts;
    if (target_.owner > 0 && platform::read_process_stat(target_.owner, facts) == 0 &&
        facts.start_time == target_.owner_start) {
      owner_lives_ = facts.state != 'X' && (facts.state != 'Z' || facts.threads > 1);
      note_line(target_.owner);
      only_init_above_ = kin_ == 2 && memory_.kin[1] == 1;
    }
    note_line(platform::sys::getpid());
  }

  INSTANCE_GUARD_NO_SANITIZE void note_line(pid_t pid) noexcept {
    platform::process_stat facts;
    for (int steps = 0; pid > 0 && steps < stray_buffers::max_kin / 2; ++steps) {
      memory_.kin[kin_++] = pid;
      if (platform::read_process_stat(pid, facts) != 0) break;
      pid = facts.parent;
    }
  }

  INSTANCE_GUARD_NO_SANITIZE bool is_kin(pid_t pid) const noexcept {
    if (pid == 1) return true;
    for (int i = 0; i < kin_; ++i)
      if (memory_.kin[i] == pid) return true;
    return false;
  }

  INSTANCE_GUARD_NO_SANITIZE bool descends(const stray_entry& entry) const noexcept {
    if (entry.parent == platform::sys::getpid()) return true;
    for (int i = 0; i < found_; ++i)
      if (memory_.found[i].descends && memory_.found[i].pid == entry.parent) return true;
    return false;
  }

  INSTANCE_GUARD_NO_SANITIZE bool is_left_alone(const stray_entry& entry) noexcept {
    for (int i = 0; i < found_; ++i)
      if (memory_.found[i].ends && memory_.found[i].pid == entry.parent) return true;
    if (owner_lives_ && entry.parent == target_.owner) {
      // A child of the program that a former holder has become? It was noticed a little later than it
      // happened, and the next start can't know at all when that was.
      constexpr std::uint64_t second = 100;  // USER_HZ, proc_pid_stat(5)
      return !target_.stranger && (target_.replaced == 0 || entry.start_time + second < target_.replaced);
    }
    if (target_.replaced != 0 && entry.start_time >= target_.replaced) return false;
    // Nobody knows any more who adopted for a dead owner: process 1 adopts for everybody, a subreaper
    // among the caller's ancestors is one that is certain to adopt. Others are not judged.
    if (target_.stranger && entry.parent == 1) return true;
    return entry.parent == adopter_for(entry.parent);
  }

  /// Who adopts the owner's orphans; found out only if `parent` could be it. 0: not known.
  INSTANCE_GUARD_NO_SANITIZE pid_t adopter_for(pid_t parent) noexcept {
    const pid_t mine = platform::sys::getppid();
    if (target_.first_parent != 0 && mine != target_.first_parent) return report_.adopter = mine;
    if (only_init_above_) return report_.adopter = 1;
    if (!is_kin(parent)) return 0;
    if (report_.adopter != 0 && is_kin(report_.adopter)) return report_.adopter;
    if (!tried_) {
      tried_ = true;
      constexpr std::int64_t limit = 500'000'000;
      const pid_t found = platform::find_adopter(limit, target_.may_lose_children);
      report_.adopter = found > 0 ? found : 0;
      if (found == -EBUSY) unsettled_ = true;  // once the group is empty it can be tried
    }
    return report_.adopter;
  }

  INSTANCE_GUARD_NO_SANITIZE bool adopter_missing(const stray_entry& entry) const noexcept {
    return report_.adopter == 0 && is_kin(entry.parent);
  }

  INSTANCE_GUARD_NO_SANITIZE void send(const platform::process_view& view, const stray_entry& entry) noexcept {
    if (signal_ == 0 || (signal_ != SIGKILL && is_noted(entry))) return;
    if (signal_ != SIGKILL && is_answer(entry)) return note(entry, stray_fate::answers, signal_);
    const int result = platform::view_signal(view, signal_);
    if (result == 0 && signal_ != SIGKILL) platform::view_signal(view, SIGCONT);
    if (result != -ESRCH) note(entry, result == 0 ? stray_fate::signalled : stray_fate::refused, signal_);
  }

  /// Reads again who it is before the signal, through the descriptor that the signal goes through.
  INSTANCE_GUARD_NO_SANITIZE void signal_again(const stray_entry& entry) noexcept {
    if (signal_ == 0) return;
    platform::process_view view;
    if (platform::open_process(entry.pid, view) != 0) return;
    platform::process_stat facts;
    stray_evidence evidence;
    if (read_marks(view, facts, evidence) == 1 && facts.start_time == entry.start_time && !evidence.other &&
        !evidence.keep)
      send(view, entry);
    platform::close_process(view);
  }

  INSTANCE_GUARD_NO_SANITIZE bool is_noted(const stray_entry& entry) const noexcept {
    for (int i = 0; i < report_.count; ++i) {
      const stray_event& each = report_.events[i];
      if (each.pid == entry.pid && each.start_time == entry.start_time && each.signal == signal_) return true;
    }
    return false;
  }

  /// True if it was started by one that has had the stop signal, or is an answer itself, and lives.
  INSTANCE_GUARD_NO_SANITIZE bool is_answer(const stray_entry& entry) const noexcept {
    if (entry.start_time < report_.stop_clock) return false;
    for (int i = 0; i < report_.count; ++i) {
      const stray_event& each = report_.events[i];
      const bool heard = each.signal == signal_ && each.fate != stray_fate::refused;
      if (heard && each.pid == entry.parent && each.start_time <= entry.start_time) return true;
    }
    return false;
  }

  /// Each process and fate once; `number` is 0 for those that are spared.
  INSTANCE_GUARD_NO_SANITIZE void note(const stray_entry& entry, stray_fate fate, int number) noexcept {
    for (int i = 0; i < report_.count; ++i) {
      const stray_event& each = report_.events[i];
      if (each.pid == entry.pid && each.start_time == entry.start_time && each.signal == number && each.fate == fate)
        return;
    }
    stray_event event;
    event.pid = entry.pid;
    event.parent = entry.parent;
    event.start_time = entry.start_time;
    event.signal = number;
    event.fate = fate;
    event.state = entry.state;
    for (std::size_t i = 0; i < sizeof event.name; ++i) event.name[i] = entry.name[i];
    if (report_.count < stray_report::capacity) report_.events[report_.count++] = event;
    else ++report_.dropped;
    if (report_.observe != nullptr) report_.observe(event, report_.observer);
  }

  const stray_target& target_;
  const int signal_;
  stray_buffers& memory_;
  stray_report& report_;
  int found_ = 0;
  int met_ = 0;
  int pid_count_ = 0;
  int kin_ = 0;
  int in_transition_ = 0;   // executed another program or ended just then
  bool vanished_ = false;   // one ended before it was looked at
  bool unsettled_ = false;  // one could not be judged at that moment
  bool owner_lives_ = false;
  bool only_init_above_ = false;
  bool tried_ = false;
};

/// Looks at all processes once and sends `signal` to each stray; 0 only counts them. The number of
/// living strays that were found, or a negated errno where processes can't be looked at (-ENOSYS
/// with POSIX alone, -ENOENT without /proc): then nobody was signalled.
///
/// Call it with the stop signal until the grace is over, then with SIGKILL until it returns 0 with
/// report.conclusive: strays fork, and those that are signalled take a moment to end. What it
/// returns does not shrink below those that can't be killed; report names them.
INSTANCE_GUARD_NO_SANITIZE inline int strays_signal(const stray_target& target, int signal, stray_buffers& memory,
                                                    stray_report& report) noexcept {
  report.conclusive = false;
  if (target.nonce[0] == '\0') {
    report.conclusive = true;
    return 0;
  }
  if (const int result = platform::process_list_is_ours(); result != 0) return result;
  if (signal != 0 && report.stop_clock == 0) report.stop_clock = platform::process_clock_now();
  constexpr int tries = 4;
  int count = 0;
  for (int i = 0; i < tries && count == 0 && !report.conclusive; ++i) {
    stray_look look(target, signal, memory, report);
    count = look.run();
  }
  return count;
}

/// Fills in what belongs to the owner: identity, user, place and program; the rest is left alone.
/// `text` is memory for the meantime. 0, or a negated errno: then the target finds nobody.
INSTANCE_GUARD_NO_SANITIZE inline int describe_owner(stray_target& target, pid_t owner, char* text,
                                                     std::size_t size) noexcept {
  platform::process_view view;
  platform::process_stat facts;
  int result = platform::open_process(owner, view);
  if (result == 0) result = platform::view_stat(view, facts);
  if (result == 0) result = platform::view_user(view, target.user);
  if (result == 0) result = platform::view_pid_namespace(view, target.pid_namespace);
  if (result == 0) {
    target.owner = owner;
    target.owner_start = facts.start_time;
    target.control_group_known = platform::view_control_group(view, text, size, target.control_group) == 0;
    if (platform::view_program(view, target.program_device, target.program_inode) != 0) target.program_inode = 0;
  }
  platform::close_process(view);
  if (result != 0) target.nonce[0] = '\0';
  return result;
}

}  // namespace instance_guard::detail
