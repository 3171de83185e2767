// layer 3: a page on which the kernel itself tells the owner that a child is past its exec.
//
// While a child of the warden is on its way there, its word on the board is not 0. The kernel clears
// it when the child leaves the warden's memory, and wakes who waits for it: set_tid_address(2). That
// is 80 us before the end of a pipe is seen to be closed, which happens when the whole exec is over
// (measured: 90 and 170 us). The warden alone writes to the page, and decides by it when a child's
// memory can be used again; the owner, which it does not trust, can only read.
//
// Async-signal-safe.
#pragma once

#include <stddef.h>
#include <sys/mman.h>

#include "../platform/platform.hpp"

namespace instance_guard::detail {

/// What is told of one child.
struct start_word {
  int state = 0;       ///< futex: not 0 while it is on its way
  int processor = -1;  ///< where it runs; -1 as long as it has not begun to
};

inline constexpr unsigned board_words = 512;                            // more than children can be starting
inline constexpr size_t board_size = board_words * sizeof(start_word);  // a page

/// Makes an empty board for the caller. `reader` becomes a descriptor with which others can see it.
/// Null: the system has none; starts are told by a pipe then.
INSTANCE_GUARD_NO_SANITIZE inline start_word* new_board(int& reader) noexcept {
  reader = platform::can_share_with_children() ? platform::page_file("instance_guard", board_size) : -1;
  if (reader < 0) return nullptr;
  void* page = platform::sys::mmap(board_size, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0);
  if (!platform::sys::is_error(page) && platform::forbid_writers(reader) == 0) return static_cast<start_word*>(page);
  if (!platform::sys::is_error(page)) platform::sys::munmap(page, board_size);
  platform::sys::close(reader);
  reader = -1;
  return nullptr;
}

/// The owner's view of it; null: it can't be seen.
inline const start_word* view_board(int reader) noexcept {
  void* page = reader < 0 ? nullptr : platform::sys::mmap(board_size, PROT_READ, MAP_SHARED, reader, 0);
  return page == nullptr || platform::sys::is_error(page) ? nullptr : static_cast<const start_word*>(page);
}

inline void leave_board(const start_word* board) noexcept {
  if (board != nullptr) platform::sys::munmap(const_cast<start_word*>(board), board_size);
}

}  // namespace instance_guard::detail
