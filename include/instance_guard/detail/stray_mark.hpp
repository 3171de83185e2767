// layer 2: the mark of an acquisition, by which its strays are found again.
//
// acquire makes it, release removes it. It is a random nonce, and a child gets it in two ways:
//
//   - in its environment, INSTANCE_GUARD_MARK=<nonce>: set for the whole program where it has one
//     thread, else only for the children that it starts through its guard (mark_entry());
//   - as a page of shared memory with the nonce in its name, which copies by fork keep and which
//     is gone after execve.
//
// A program that was started below another guard has that one's mark in its environment. For its
// own children the variable is replaced, and put back on release.
//
// Memory is allocated by setenv(3) only. Thread-safe. fork: the child's copy of a mark is not its
// own, remove_stray_mark() there does nothing. Not for signal handlers, unless said so.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "stray_scan.hpp"
#include "stray_target.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// One acquisition's mark. A plain value that may be copied; one remove_stray_mark() ends it.
struct stray_mark {
  nonce_text nonce = {};       ///< empty: no mark
  std::uint64_t device = 0;    ///< of the mark page
  std::uint64_t inode = 0;     ///< 0: there is none, copies by fork are not found
  bool env_set = false;        ///< INSTANCE_GUARD_MARK is set in this program
  std::uint64_t acquired = 0;  ///< platform::process_clock_now() when it was made
  pid_t owner = 0;             ///< the process that made it
  int slot = -1;               ///< in marks_here

  explicit operator bool() const noexcept { return nonce[0] != '\0'; }
};

/// The marks whose pages this process has, its own and those of the processes it is a copy of.
struct mark_slot {
  bool used = false;
  pid_t owner = 0;
  std::uint64_t order = 0;  ///< grows with each mark of this process
  nonce_text nonce = {};
  platform::mark_page page = {};
  bool replaced = false;    ///< the variable had a value before
  char previous[128] = {};  ///< that value
};

struct mark_table {
  static constexpr int size = 16;
  mark_slot slots[size] = {};
  std::uint64_t made = 0;
  /// The nonce that a release had to leave in the environment because other threads were running.
  /// The next acquisition in this process takes it again: it can't be replaced either.
  nonce_text left_behind = {};
  std::atomic<pid_t> changed_by = 0;
};
inline constinit mark_table marks_here = {};

/// One thread at a time changes the table. A fork by another thread may copy the table while it is
/// changed: the copy then takes over from the thread that it does not have.
class mark_table_lock {
 public:
  mark_table_lock() noexcept {
    const pid_t self = platform::sys::getpid();
    pid_t holder = 0;
    while (!marks_here.changed_by.compare_exchange_weak(holder, self, std::memory_order_acquire)) {
      if (holder != self) continue;  // free after all, or left by the process this one was forked from
      platform::sys::sleep_for(50'000);
      holder = 0;
    }
  }
  ~mark_table_lock() { marks_here.changed_by.store(0, std::memory_order_release); }
  mark_table_lock(const mark_table_lock&) = delete;
  mark_table_lock& operator=(const mark_table_lock&) = delete;
};

inline void copy_text(char* to, std::size_t size, const char* from) noexcept {
  std::size_t i = 0;
  for (; i + 1 < size && from[i] != '\0'; ++i) to[i] = from[i];
  to[i] = '\0';
}

/// Never fails: where the kernel has no random numbers yet, what tells this acquisition from any
/// other on this host will do. The nonce is a name, not a secret.
inline void make_nonce(nonce_text& out) noexcept {
  std::uint64_t half[2] = {};
  if (platform::random_bytes(half, sizeof half) != 0) {
    half[0] = static_cast<std::uint64_t>(platform::sys::monotonic_now()) * 0x9e3779b97f4a7c15U;
    half[1] = (platform::process_clock_now() << 32 | static_cast<std::uint64_t>(platform::sys::getpid())) *
              0xc2b2ae3d27d4eb4fU;
  }
  for (std::size_t i = 0; i < nonce_digits; ++i) out[i] = "0123456789abcdef"[half[i / 16] >> (i % 16 * 4) & 0xfU];
  out[nonce_digits] = '\0';
}

/// "INSTANCE_GUARD_MARK=<nonce>", for the environment of a child that gets its own.
inline std::string mark_entry(const stray_mark& mark) { return joined({mark_variable, "=", mark.nonce}); }

namespace mark_environment {

/// Puts the nonce in; the value before it is remembered in the slot. False: not now, or no memory.
inline bool set(mark_slot& slot) noexcept {
  if (!platform::has_one_thread()) return std::strcmp(slot.nonce, marks_here.left_behind) == 0;
  const char* before = std::getenv(mark_variable);
  slot.replaced = before != nullptr;
  copy_text(slot.previous, sizeof slot.previous, before != nullptr ? before : "");
  if (::setenv(mark_variable, slot.nonce, 1) != 0) return false;
  marks_here.left_behind[0] = '\0';
  return true;
}

/// Takes it out again. Guards of one program may end in any order: if the variable has a later
/// one's nonce, that one's memory of "before" is mended instead.
inline void restore(const mark_slot& slot) noexcept {
  for (mark_slot& later : marks_here.slots)
    if (&later != &slot && later.used && later.owner == slot.owner && std::strcmp(later.previous, slot.nonce) == 0) {
      later.replaced = slot.replaced;
      copy_text(later.previous, sizeof later.previous, slot.previous);
    }
  if (!platform::has_one_thread()) {
    copy_text(marks_here.left_behind, sizeof marks_here.left_behind, slot.nonce);
    return;
  }
  const char* now = std::getenv(mark_variable);
  if (now == nullptr || std::strcmp(now, slot.nonce) != 0) return;
  if (slot.replaced) ::setenv(mark_variable, slot.previous, 1);
  else ::unsetenv(mark_variable);
}

}  // namespace mark_environment

/// Makes a mark and gives it to everything that this program starts from now on; with
/// `only_given`, to nothing but those that get mark_entry(). Fails only if this process has sixteen
/// already (no_buffer_space). A mark without page or variable is no error: the members say what
/// there is.
inline stray_mark make_stray_mark(std::error_code& ec, bool only_given = false) noexcept {
  ec.clear();
  const mark_table_lock lock;
  for (int i = 0; i < mark_table::size; ++i) {
    mark_slot& slot = marks_here.slots[i];
    if (slot.used) continue;
    slot = {};
    slot.used = true;
    slot.owner = platform::sys::getpid();
    slot.order = ++marks_here.made;
    if (marks_here.left_behind[0] != '\0' && !platform::has_one_thread())
      copy_text(slot.nonce, sizeof slot.nonce, marks_here.left_behind);
    else make_nonce(slot.nonce);
    stray_mark mark;
    mark.acquired = platform::process_clock_now();
    mark.owner = slot.owner;
    mark.slot = i;
    mark.env_set = !only_given && mark_environment::set(slot);
    char name[sizeof mark_page_prefix + nonce_digits];
    copy_text(name, sizeof name, mark_page_prefix);
    copy_text(name + sizeof mark_page_prefix - 1, nonce_digits + 1, slot.nonce);
    if (!only_given && platform::make_mark_page(name, slot.page) == 0) {
      mark.device = slot.page.device;
      mark.inode = slot.page.inode;
    }
    std::memcpy(mark.nonce, slot.nonce, sizeof mark.nonce);
    return mark;
  }
  ec = std::make_error_code(std::errc::no_buffer_space);
  return {};
}

/// Takes the mark back: what is started from now on does not have it. The variable stays if other
/// threads are running, without harm: nobody looks for it any more.
inline void remove_stray_mark(stray_mark& mark) noexcept {
  if (mark.slot >= 0 && mark.owner == platform::sys::getpid()) {
    const mark_table_lock lock;
    mark_slot& slot = marks_here.slots[mark.slot];
    if (slot.used && slot.owner == mark.owner && std::strcmp(slot.nonce, mark.nonce) == 0) {
      if (mark.env_set) mark_environment::restore(slot);
      platform::drop_mark_page(slot.page);
      slot = {};
    }
  }
  mark = {};
}

/// In a copy by fork that goes on as the program, once the first process has handed over: the mark
/// is this process's from now on.
inline void take_over_stray_mark(stray_mark& mark) noexcept {
  const mark_table_lock lock;
  const pid_t self = platform::sys::getpid();
  for (mark_slot& slot : marks_here.slots)
    if (slot.used && slot.owner == mark.owner) slot.owner = self;
  mark.owner = self;
}

/// In a copy of the program that must not pass for it (a warden): gives all pages back. The
/// environment that /proc shows has to be blanked as well: platform::rename_self. Async-signal-safe.
INSTANCE_GUARD_NO_SANITIZE inline void forget_marks_in_copy() noexcept {
  for (mark_slot& slot : marks_here.slots) platform::drop_mark_page(slot.page);
}

/// Whom to look for: call it in the owner, while the mark is in force; for a new owner (after
/// daemonize) once more in that one. Give the result to the warden, which sets first_parent.
inline stray_target target_of(const stray_mark& mark) noexcept {
  stray_target target;
  if (!mark || mark.slot < 0) return target;
  std::memcpy(target.nonce, mark.nonce, sizeof target.nonce);
  target.page_device = mark.device;
  target.page_inode = mark.inode;
  target.acquired = mark.acquired;
  int count = 0;
  const auto add = [&](const char* nonce) {
    if (std::strlen(nonce) != nonce_digits || std::strcmp(nonce, mark.nonce) == 0) return;
    for (int i = 0; i < count; ++i)
      if (std::strcmp(nonce, target.enclosing[i]) == 0) return;
    if (count < stray_target::max_enclosing) std::memcpy(target.enclosing[count++], nonce, nonce_digits + 1);
  };
  {
    const mark_table_lock lock;
    const mark_slot& own = marks_here.slots[mark.slot];
    add(own.previous);
    // Later ones of this process are guards inside this one, and look after their own.
    for (const mark_slot& each : marks_here.slots)
      if (each.used && (each.owner != own.owner || each.order < own.order)) add(each.nonce);
  }
  char text[4096];
  platform::process_view self;
  if (platform::open_process(platform::sys::getpid(), self) == 0) {
    nonce_text started_with = {};
    platform::view_environment(
        self, text, sizeof text,
        [](const char* entry, std::size_t size, void* out) {
          const std::size_t at = skip_prefix(entry, size, mark_variable);
          if (at == 0 || size != at + 1 + nonce_digits || entry[at] != '=') return true;
          std::memcpy(out, entry + at + 1, nonce_digits);
          return false;
        },
        started_with);
    platform::close_process(self);
    add(started_with);
  }
  describe_owner(target, platform::sys::getpid(), text, sizeof text);
  return target;
}

}  // namespace instance_guard::detail
