// layer 2: whose strays are looked for, the memory for it, and what was done.
//
// A stray is a process that a program started by itself (system, popen, fork, another library),
// not through its process_group. stray_scan.hpp says which ones end with the guard.
//
// Plain values of fixed size: they can be filled in one process and used in another (the warden),
// also in a copy of it, without allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/types.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// 128 random bits as 32 lower-case hexadecimal digits, ended by NUL; empty: none.
inline constexpr std::size_t nonce_digits = 32;
using nonce_text = char[nonce_digits + 1];

/// The environment variable with the nonce, and the one that spares a process and its children.
inline constexpr char mark_variable[] = "INSTANCE_GUARD_MARK";
inline constexpr char keep_entry[] = "INSTANCE_GUARD_KEEP=1";

/// The name of a mark page begins with this, then the nonce. In /proc/<pid>/maps there is
/// "/memfd:" before it.
inline constexpr char mark_page_prefix[] = "instance_guard:";
/// The page of a warden. It is a mark of nobody, so that no guard takes its bearer for a stray.
inline constexpr char warden_page[] = "instance_guard:warden";

/// Whose strays. Everything that a process is compared with.
struct stray_target {
  nonce_text nonce = {};
  std::uint64_t page_device = 0;  ///< of the mark page
  std::uint64_t page_inode = 0;   ///< 0: unknown, its name decides alone

  /// Marks that the owner carried itself when it got this one: of a guard that it was started
  /// below, or of another guard in the same program. Its copies carry them too.
  static constexpr int max_enclosing = 8;
  nonce_text enclosing[max_enclosing] = {};

  pid_t owner = 0;
  std::uint64_t owner_start = 0;  ///< process_stat::start_time
  std::uint64_t acquired = 0;     ///< the same clock: nothing older is a stray
  uid_t user = static_cast<uid_t>(-1);
  std::uint64_t pid_namespace = 0;
  std::uint64_t control_group = 0;   ///< platform::view_control_group; 0: none on this host
  bool control_group_known = false;  ///< false: nobody can be proven to share it
  std::uint64_t program_device = 0;  ///< of the owner's executable
  std::uint64_t program_inode = 0;   ///< 0: unknown

  /// The owner's pid if whoever looks for the strays is its child (the warden): when its own parent
  /// is another one, that has adopted it, and adopts all orphans of the owner. 0: it is not, or it
  /// is the child of another helper; then the adopter is found in another way.
  pid_t first_parent = 0;
  /// When the owner became another program by exec, as process_stat::start_time counts; 0: it has not.
  /// What started since is that program's, unless it descends from a stray.
  std::uint64_t replaced = 0;
  /// Whoever looks is no relative of the owner, which is dead: the next start.
  bool stranger = false;
  /// Whoever looks has no children but such as are to be left alone, and so may stop adopting for a
  /// moment to find out who else does.
  bool may_lose_children = false;
};

/// What became of a process that carries the mark.
enum class stray_fate : unsigned char {
  signalled,
  refused,          ///< the kernel did not allow the signal
  answers,          ///< has the grace: started by one that lives and has had the stop signal
  kept,             ///< spared: INSTANCE_GUARD_KEEP=1
  other_guard,      ///< spared: it carries another guard's mark as well
  other_service,    ///< spared: another cgroup, or its owner's is not known
  other_namespace,  ///< spared: another pid namespace
  supervised,       ///< spared: its parent lives and does not end
  undecided         ///< spared: who adopts the owner's orphans could not be found out
};

/// "spared: its parent lives", ...
constexpr const char* to_string(stray_fate fate) noexcept {
  switch (fate) {
    case stray_fate::signalled: return "signalled";
    case stray_fate::refused: return "may not be signalled";
    case stray_fate::answers: return "answers the stop signal";
    case stray_fate::kept: return "spared: INSTANCE_GUARD_KEEP=1";
    case stray_fate::other_guard: return "spared: carries another guard's mark";
    case stray_fate::other_service: return "spared: in another cgroup";
    case stray_fate::other_namespace: return "spared: in another pid namespace";
    case stray_fate::supervised: return "spared: its parent lives";
    case stray_fate::undecided: return "spared: the adopter of orphans is unknown";
  }
  return "unknown";
}

/// One thing that was done, or left undone, to one process. Each is noted once.
struct stray_event {
  pid_t pid = 0;
  pid_t parent = 0;
  std::uint64_t start_time = 0;
  int signal = 0;  ///< 0 with those that are spared
  stray_fate fate = stray_fate::signalled;
  char state = '?';  ///< process_stat::state, when noted
  char name[16] = {};
};

/// The log of all scans of one end. Give the same one to each of them: a signal other than SIGKILL
/// is sent once to each process that is noted here.
struct stray_report {
  static constexpr int capacity = 512;
  stray_event events[capacity] = {};
  int count = 0;
  int dropped = 0;               ///< events that did not fit
  int unreadable = 0;            ///< in the last scan: same user and young enough, but can't be read
  std::uint64_t stop_clock = 0;  ///< when the stop signal was first sent, as process_stat::start_time counts
  pid_t adopter = 0;             ///< who adopts the owner's orphans; 0: it was not needed, or not found
  bool conclusive = false;       ///< the last scan has seen every process there was
  /// For tests and tools: called for each event, also one that does not fit. Async-signal-safe.
  void (*observe)(const stray_event&, void*) = nullptr;
  void* observer = nullptr;
};

/// One process that carries the mark.
struct stray_entry {
  pid_t pid = 0;
  pid_t parent = 0;
  std::uint64_t start_time = 0;
  bool ends = false;
  bool descends = false;  ///< from whoever looks: it is not a stray, but a member of the group
  char state = '?';
  char name[16] = {};
};

/// Memory for a scan, some 110 KiB. What is in it between scans does not matter.
struct stray_buffers {
  static constexpr int max_found = 1024;
  static constexpr int max_pids = 4096;
  static constexpr int max_kin = 128;
  static constexpr int max_changing = 64;
  char directory[32 * 1024];
  char text[16 * 1024];
  pid_t pids[max_pids];
  stray_entry found[max_found];
  pid_t kin[max_kin];
  pid_t changing[max_changing];
};

}  // namespace instance_guard::detail
