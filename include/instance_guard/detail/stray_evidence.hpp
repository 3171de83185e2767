// layer 2: does a process carry the mark of a guard? Read from its environment and its mappings.
//
// Async-signal-safe; no allocation; usable after any kind of fork. Any bytes may be in there: a
// process chooses its environment itself, and can overwrite it.
#pragma once

#include "stray_target.hpp"

namespace instance_guard::detail {

/// What a process was seen to carry.
struct stray_evidence {
  bool ours = false;   ///< the mark that is looked for
  bool other = false;  ///< a mark of a guard that is neither this one nor one around it
  bool keep = false;   ///< INSTANCE_GUARD_KEEP=1
  /// Something that each process has was missing. One that ends gives its memory back some time
  /// before it is a zombie, and one that executes another program has none for a moment: both
  /// then look as if they carried nothing.
  bool incomplete = false;
};

/// If `text` begins with `prefix`, its length; else 0.
template <std::size_t Size>
INSTANCE_GUARD_NO_SANITIZE inline std::size_t skip_prefix(const char* text, std::size_t size,
                                                          const char (&prefix)[Size]) noexcept {
  if (size < Size - 1) return 0;
  for (std::size_t i = 0; i < Size - 1; ++i)
    if (text[i] != prefix[i]) return 0;
  return Size - 1;
}

INSTANCE_GUARD_NO_SANITIZE inline bool equal_nonce(const char* text, const nonce_text& nonce) noexcept {
  for (std::size_t i = 0; i < nonce_digits; ++i)
    if (text[i] != nonce[i]) return false;
  return nonce[0] != '\0';
}

enum class mark_kind { none, ours, enclosing, other };

/// Whose mark `text` is, if it is one: 32 digits, and nothing else but what `after` allows.
INSTANCE_GUARD_NO_SANITIZE inline mark_kind whose_mark(const char* text, std::size_t size,
                                                       const stray_target& target) noexcept {
  if (size == 0) return mark_kind::none;
  if (size != nonce_digits) return mark_kind::other;
  if (equal_nonce(text, target.nonce)) return mark_kind::ours;
  for (const nonce_text& each : target.enclosing)
    if (equal_nonce(text, each)) return mark_kind::enclosing;
  return mark_kind::other;
}

/// One "NAME=value" of an environment.
INSTANCE_GUARD_NO_SANITIZE inline void look_at_environment_entry(const char* entry, std::size_t size,
                                                                 const stray_target& target,
                                                                 stray_evidence& out) noexcept {
  constexpr std::size_t keep_size = sizeof keep_entry - 1;
  if (size == keep_size && skip_prefix(entry, size, keep_entry) != 0) out.keep = true;
  std::size_t at = skip_prefix(entry, size, mark_variable);
  if (at == 0 || at >= size || entry[at] != '=') return;
  ++at;
  const mark_kind kind = whose_mark(entry + at, size - at, target);
  if (kind == mark_kind::ours) out.ours = true;
  if (kind == mark_kind::other) out.other = true;
}

/// One mapped file.
INSTANCE_GUARD_NO_SANITIZE inline void look_at_mapped_file(const platform::mapped_file& file,
                                                           const stray_target& target, stray_evidence& out) noexcept {
  constexpr char kernel_prefix[] = "/memfd:";
  const char* text = file.path;
  std::size_t size = file.path_size;
  std::size_t skipped = skip_prefix(text, size, kernel_prefix);
  if (skipped == 0) return;
  text += skipped;
  size -= skipped;
  skipped = skip_prefix(text, size, mark_page_prefix);
  if (skipped == 0) return;
  text += skipped;
  size -= skipped;
  std::size_t length = 0;
  while (length < size && text[length] != ' ') ++length;
  const mark_kind kind = whose_mark(text, length, target);
  const bool same_page =
      target.page_inode == 0 || (file.inode == target.page_inode && file.device == target.page_device);
  if (kind == mark_kind::ours && same_page) out.ours = true;
  if (kind == mark_kind::other) out.other = true;
}

/// Looks at one process. 0, or a negated errno: then what is in `out` is not all of it.
///
/// Mappings are read only where they can tell something: of a process that runs the owner's
/// program (a copy by fork does), and of one whose environment has the mark, in which another
/// guard may have been acquired since.
INSTANCE_GUARD_NO_SANITIZE inline int look_for_marks(const platform::process_view& view, const stray_target& target,
                                                     char* buffer, std::size_t size, stray_evidence& out) noexcept {
  struct context {
    const stray_target& target;
    stray_evidence& out;
    std::size_t environment = 0;
    bool mapped = false;
    INSTANCE_GUARD_NO_SANITIZE static bool entry(const char* text, std::size_t length, void* self) noexcept {
      auto* here = static_cast<context*>(self);
      here->environment += length + 1;
      look_at_environment_entry(text, length, here->target, here->out);
      return true;
    }
    INSTANCE_GUARD_NO_SANITIZE static bool mapping(const platform::mapped_file& file, void* self) noexcept {
      auto* here = static_cast<context*>(self);
      here->mapped = true;
      look_at_mapped_file(file, here->target, here->out);
      return true;
    }
  } here{target, out};
  int result = platform::view_environment(view, buffer, size, context::entry, &here);
  if (result != 0) return result;
  // What was read in pieces may have ended between two of them.
  out.incomplete = here.environment == 0 || here.environment >= size / 2;
  if (!out.ours && target.program_inode != 0) {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    result = platform::view_program(view, device, inode);
    if (result == -ENOENT) out.incomplete = true;
    if (result == -ENOENT) return 0;
    if (result != 0) return result;
    if (device != target.program_device || inode != target.program_inode) return 0;
  }
  result = platform::view_mapped_files(view, buffer, size, context::mapping, &here);
  if (!here.mapped) out.incomplete = true;
  return result;
}

}  // namespace instance_guard::detail
