// layer 3: the warden starts a child for its owner.
//
// As fast as vfork, but without its danger: while an exec hangs (a file system that does not
// answer), a vfork'ing parent is deaf, also to its owner's death. Here the child borrows the
// warden's memory, and the kernel clears slot.word when it has left it; the warden does not wait for
// that, it looks again later. How the exec went the owner hears from the child: see wire.hpp.
// Runs in the warden: see warden_state.hpp.
#pragma once

#include <new>

#include "../platform/platform.hpp"
#include "../process_group_types.hpp"
#include "child_start.hpp"
#include "start_time.hpp"
#include "warden_credentials.hpp"
#include "warden_state.hpp"

namespace instance_guard::detail {

/// Children whose exec hangs, at most; more get EAGAIN.
inline constexpr uint32_t max_starting = 256;

INSTANCE_GUARD_NO_SANITIZE inline spawn_slot* new_slot(warden_state& warden) noexcept {
  unsigned word = 0;
  while (warden.board != nullptr && word < board_words && warden.word_taken[word]) ++word;
  if (word == board_words) return nullptr;
  void* memory = sys::mmap(sizeof(spawn_slot), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sys::is_error(memory)) return nullptr;
  auto* slot = new (memory) spawn_slot;  // large parts stay untouched
  if (warden.board != nullptr) {
    slot->word = warden.board + word;
    warden.word_taken[word] = true;
  }
  return slot;
}

INSTANCE_GUARD_NO_SANITIZE inline void delete_slot(warden_state& warden, spawn_slot* slot) noexcept {
  if (warden.board != nullptr) warden.word_taken[slot->word - warden.board] = false;
  sys::munmap(slot, sizeof *slot);
}

INSTANCE_GUARD_NO_SANITIZE inline void close_fd(int& descriptor) noexcept {
  if (descriptor >= 0) sys::close(descriptor);
  descriptor = -1;
}

/// Lets go of what one spawn needed; the slot can be used again.
INSTANCE_GUARD_NO_SANITIZE inline void clean_slot(spawn_slot& slot) noexcept {
  if (slot.large != nullptr) sys::munmap(slot.large, slot.large_size);
  if (slot.more_pointers != nullptr) sys::munmap(slot.more_pointers, slot.more_pointers_size);
  slot.large = nullptr;
  slot.more_pointers = nullptr;
}

/// True once the child has left the slot: its exec went well, or it has ended.
INSTANCE_GUARD_NO_SANITIZE inline bool has_left(const spawn_slot& slot) noexcept {
  return __atomic_load_n(&slot.word->state, __ATOMIC_ACQUIRE) == 0;
}

/// Takes back the slots that children have left.
INSTANCE_GUARD_NO_SANITIZE inline void check_starting(warden_state& warden) noexcept {
  for (uint32_t i = 0; i < warden.starting.size();) {
    spawn_slot* slot = warden.starting[i];
    if (!has_left(*slot)) {
      ++i;
      continue;
    }
    clean_slot(*slot);
    warden.starting.remove(i);
    if (warden.spare == nullptr) warden.spare = slot;
    else if (warden.second_spare == nullptr) warden.second_spare = slot;
    else delete_slot(warden, slot);
  }
}

/// Makes sure that a message can be received. Null: there is no memory now.
INSTANCE_GUARD_NO_SANITIZE inline spawn_slot* spare_slot(warden_state& warden) noexcept {
  if (warden.spare == nullptr) check_starting(warden);
  if (warden.spare == nullptr) {
    warden.spare = warden.second_spare;
    warden.second_spare = nullptr;
  }
  if (warden.spare == nullptr) warden.spare = new_slot(warden);
  return warden.spare;
}

INSTANCE_GUARD_NO_SANITIZE inline bool answer(int channel, int error, wire::answer what = {}) noexcept {
  what.error = error < 0 ? -error : error;
  what.credentials_changed = error == -EKEYREJECTED;
  return wire::send(channel, &what, sizeof what) >= 0;
}

/// Tells the warden above whether anybody is left, when that has changed.
INSTANCE_GUARD_NO_SANITIZE inline void tell_parent(warden_state& warden) noexcept {
  if (warden.lifeline < 0 || warden.empty == warden.told_empty) return;
  const wire::header word = {warden.empty ? wire::kind::empty : wire::kind::ping, 0};
  if (wire::send(warden.lifeline, &word, sizeof word) >= 0) warden.told_empty = warden.empty;
}

/// True if nobody waits for an answer on this channel any more.
INSTANCE_GUARD_NO_SANITIZE inline bool is_abandoned(int channel) noexcept {
  pollfd entry = {channel, 0, 0};
  return sys::ppoll(&entry, 1, 0, nullptr) > 0 && (entry.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/// Points `to` at `count` texts in a row, each ending in NUL, and ends it with null.
INSTANCE_GUARD_NO_SANITIZE inline bool point_at(char**& to, uint32_t count, char*& text, char* end) noexcept {
  for (uint32_t i = 0; i < count; ++i) {
    if (text >= end) return false;
    *to++ = text;
    while (text < end && *text != '\0') ++text;
    if (text == end) return false;
    ++text;
  }
  *to++ = nullptr;
  return true;
}

/// Brings the text of the request into the slot and points at its parts. 0, or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline int unpack_text(spawn_slot& slot, const wire::spawn_request& request,
                                                  const wire::received& got) noexcept {
  char* text = reinterpret_cast<char*>(slot.message + sizeof request);
  size_t size = static_cast<size_t>(got.size) - sizeof request;
  if (request.text >= 0) {
    if (request.text >= static_cast<int>(got.count) || request.text_size > wire::max_text) return -EINVAL;
    size = request.text_size;
    slot.large_size = size + 1;
    slot.large = sys::mmap(slot.large_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys::is_error(slot.large)) {
      slot.large = nullptr;
      return -ENOMEM;
    }
    text = static_cast<char*>(slot.large);
    for (size_t done = 0; done < size;) {
      const long part = sys::pread(got.descriptors[request.text], text + done, size - done, static_cast<off_t>(done));
      if (part == -EINTR) continue;
      if (part <= 0) return part < 0 ? static_cast<int>(part) : -EINVAL;
      done += static_cast<size_t>(part);
    }
  } else if (request.text_size != size) {
    return -EINVAL;
  }
  text[size] = '\0';  // there is room for it: both buffers are one byte longer
  const uint64_t pointers = uint64_t{request.candidates} + request.arguments + request.environment + 4;
  if (pointers > size + 4 || request.candidates == 0 || request.arguments == 0) return -EINVAL;
  char** at = slot.pointers;
  if (pointers > slot_pointers) {
    slot.more_pointers_size = pointers * sizeof(char*);
    void* memory = sys::mmap(slot.more_pointers_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys::is_error(memory)) return -ENOMEM;
    at = slot.more_pointers = static_cast<char**>(memory);
  }
  char* end = text + size;
  slot.candidates = at;
  if (!point_at(at, request.candidates, text, end)) return -EINVAL;
  slot.arguments = at;
  if (!point_at(at, request.arguments, text, end)) return -EINVAL;
  slot.environment = at;
  if (!point_at(at, request.environment, text, end)) return -EINVAL;
  char* directory[2] = {nullptr, nullptr};
  at = directory;
  if (!point_at(at, 1, text, end)) return -EINVAL;
  slot.directory = *directory[0] == '\0' ? nullptr : directory[0];
  return 0;
}

/// Whether `number` can index a descriptor that came with the request (0 is the answer's).
INSTANCE_GUARD_NO_SANITIZE inline bool is_index(int number, const wire::received& got) noexcept {
  return number > 0 && number < static_cast<int>(got.count);
}

INSTANCE_GUARD_NO_SANITIZE inline int fill_slot(warden_state& warden, spawn_slot& slot,
                                                const wire::spawn_request& request,
                                                const wire::received& got) noexcept {
  const int result = unpack_text(slot, request, got);
  if (result < 0) return result;
  for (int i = 0; i < 3; ++i) {
    const int8_t from = request.streams[i];
    if (from == wire::to_null || (from == wire::join_out && i == 2)) slot.streams[i] = from;
    else if (is_index(from, got)) slot.streams[i] = got.descriptors[from];
    else return -EINVAL;
  }
  if (!is_index(request.directory, got)) return -EINVAL;
  if (warden.board == nullptr && !is_index(request.exec, got)) return -EINVAL;
  slot.directory_fd = got.descriptors[request.directory];
  slot.report = got.descriptors[0];
  slot.warden = warden.self;
  slot.attributes = warden.attributes;
  slot.process_group = request.process_group;
  slot.own_attributes = &warden.attributes;
  slot.asking = request.thread > 0 ? request.thread : warden.owner;
  slot.mask = request.mask;
  slot.outlives = request.outlives;
  slot.control_group = request.outlives || warden.together_ended ? -1 : warden.together.directory;
  slot.no_new_privileges = request.no_new_privileges;
  return 0;
}

/// Starts the child in the warden's memory. Its pid, or a negated errno: -ENOSYS where that can't
/// be done.
INSTANCE_GUARD_NO_SANITIZE inline long start_sharing_child(spawn_slot& slot, int value) noexcept {
  if constexpr (!platform::children_may_share_memory) return -ENOSYS;
  platform::clone_request how;
  how.flags = platform::sharing_flags;
  how.exit_signal = SIGCHLD;
  how.tid = &slot.word->state;
  how.stack = slot.stack;
  how.stack_size = sizeof slot.stack;
  how.control_group = slot.control_group;
  __atomic_store_n(&slot.word->processor, -1, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.word->state, value, __ATOMIC_RELEASE);
  const long child = platform::clone_call(how, child_main, &slot);
  if (child < 0) __atomic_store_n(&slot.word->state, 0, __ATOMIC_RELEASE);
  return child == -EPERM ? -ENOSYS : child;
}

/// Starts the child as a copy of the warden.
INSTANCE_GUARD_NO_SANITIZE inline long start_copied_child(spawn_slot& slot) noexcept {
  const long child = platform::fork_copy(SIGCHLD);
  if (child == 0) child_main(&slot);
  return child;
}

/// Makes a new group of the kernel's where somebody has removed it; see warden_together.hpp.
INSTANCE_GUARD_NO_SANITIZE inline bool replace_together(warden_state& warden) noexcept;

/// Starts the child and judges the request, at the same time if possible. The child's pid; with
/// `error` set it ends by itself. Or a negated errno.
INSTANCE_GUARD_NO_SANITIZE inline long start_child(warden_state& warden, spawn_slot& slot, int& error) noexcept {
  slot.verdict = undecided;
  if (++warden.last_word == 0) ++warden.last_word;
  long child = start_sharing_child(slot, static_cast<int>(warden.last_word));
  for (int tries = 0; tries < 2; ++tries) {
    if (child >= 0 || child == -EAGAIN || child == -ENOMEM || slot.control_group < 0) break;
    // Somebody has removed it: another takes its place, once. Else it takes no processes any more: the warden is a
    // subreaper all the same.
    warden.mechanism = static_cast<uint32_t>(containment::subreaper);
    slot.control_group = tries == 0 && replace_together(warden) ? warden.together.directory : -1;
    child = start_sharing_child(slot, static_cast<int>(warden.last_word));
  }
  if (child != -ENOSYS || warden.board != nullptr) {
    if (child < 0) return child;
    error = check_owner(warden, slot.asking, slot.attributes);
    __atomic_store_n(&slot.verdict, error == 0 ? approved : refused, __ATOMIC_RELEASE);
    sys::futex_wake(&slot.verdict);
    return child;
  }
  error = check_owner(warden, slot.asking, slot.attributes);
  if (error < 0) return error;
  slot.verdict = approved;
  return start_copied_child(slot);
}

/// A spawn request lies in warden.spare->message. Takes over all its descriptors.
INSTANCE_GUARD_NO_SANITIZE inline void take_spawn(warden_state& warden, wire::received& got) noexcept {
  spawn_slot& slot = *warden.spare;
  const auto& request = *reinterpret_cast<const wire::spawn_request*>(slot.message);
  int result = got.full ? -EMFILE : got.cut || got.size < static_cast<long>(sizeof request) ? -EINVAL : 0;
  if (result == 0 && (warden.phase != ending::none || warden.goodbye)) result = -ECANCELED;
  if (result == 0 && warden.starting.size() >= max_starting) result = -EAGAIN;
  const bool unwanted = is_abandoned(got.descriptors[0]);
  if (result == 0 && !unwanted) result = fill_slot(warden, slot, request, got);
  if (result == 0 && !unwanted &&
      (!warden.children.reserve(warden.children.size() + 1) || !warden.starting.reserve(warden.starting.size() + 1)))
    result = -ENOMEM;
  long child = 0;
  int judgement = 0;
  const uint64_t began = platform::process_clock_now();
  if (result == 0 && !unwanted) {
    child = start_child(warden, slot, judgement);
    if (child < 0) result = static_cast<int>(child);
  }
  if (result < 0 || unwanted) {
    if (!unwanted) answer(got.descriptors[0], result);
    for (unsigned i = 0; i < got.count; ++i) sys::close(got.descriptors[i]);
    clean_slot(slot);
    return;
  }
  const pid_t pid = static_cast<pid_t>(child);
  const uint64_t token = warden.next_token++;
  const auto value = static_cast<int32_t>(warden.last_word);
  warden.anybody = warden.changed = true;
  warden.empty = false;
  tell_parent(warden);  // before the owner knows, so that it finds no idle group above
  wire::answer about;
  about.pid = pid;
  about.start_time = start_time_of(pid, began);
  about.token = token;
  if (warden.board != nullptr) about.word = static_cast<int32_t>(slot.word - warden.board);
  about.word_value = value;
  const bool heard = answer(got.descriptors[0], judgement, about);
  for (unsigned i = 1; i < got.count; ++i) sys::close(got.descriptors[i]);
  if (!heard || judgement < 0) close_fd(got.descriptors[0]);
  warden.children.push({pid, got.descriptors[0], token, slot.outlives, slot.process_group != 0});
  warden.starting.push(&slot);
  warden.spare = nullptr;
}

}  // namespace instance_guard::detail
