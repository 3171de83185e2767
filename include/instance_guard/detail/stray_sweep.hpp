// layer 3: ends the strays of a holder that was killed together with its warden.
//
// The next start does this before acquire returns, while it holds the name. Normally there is
// nothing to do: the warden has done it. The rules are those of stray_scan.hpp; what is different
// is that nobody knows who adopted the dead owner's orphans. A parent is believed to have adopted
// a stray only if it is process 1, or the process that adopts the caller's own orphans (tried, by
// platform::find_adopter, only if it decides something). A stray that another subreaper adopted
// (a terminal's or a session's) is left alone and reported: its parent may have started it.
//
// Also left alone: everything, if the record is of another boot (nothing of it can live), of
// another pid namespace, or does not say in which cgroup the owner was.
//
// Thread-safe. Not for signal handlers.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "../process_identity.hpp"
#include "deadline.hpp"
#include "owned.hpp"
#include "stray_mark.hpp"
#include "stray_scan.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// What the record keeps of a mark, parts joined by '-': the nonce; in 16 hexadecimal digits the
/// owner's cgroup, all 0 for none (the nonce ends the text where it could not be read); the nonces
/// of the marks around it. At most mark_text_size characters.
inline constexpr std::size_t mark_text_size = nonce_digits + 17 + stray_target::max_enclosing * (nonce_digits + 1);

inline std::string mark_text(const stray_target& target) {
  std::string text = target.nonce;
  if (text.empty() || !target.control_group_known) return text;
  text += '-';
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[target.control_group >> shift & 0xfU];
  for (const nonce_text& each : target.enclosing)
    if (each[0] != '\0') text = joined({text, "-", each});
  return text;
}

/// Reads that back from a record, which may hold any bytes. False: it is no mark.
inline bool parse_mark_text(std::string_view text, stray_target& target) noexcept {
  const auto next_part = [&](char* out, std::size_t digits) {
    if (text.size() < digits) return false;
    for (std::size_t i = 0; i < digits; ++i) {
      const char c = text[i];
      if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
      out[i] = c;
    }
    text.remove_prefix(digits);
    if (text.empty()) return true;
    if (text.front() != '-' || text.size() == 1) return false;
    text.remove_prefix(1);
    return true;
  };
  stray_target parsed = target;
  if (!next_part(parsed.nonce, nonce_digits)) return false;
  parsed.control_group_known = !text.empty();
  if (!text.empty()) {
    char group[16];
    if (!next_part(group, sizeof group)) return false;
    parsed.control_group = 0;
    for (const char c : group)
      parsed.control_group = parsed.control_group << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  for (int i = 0; !text.empty(); ++i)
    if (i == stray_target::max_enclosing || !next_part(parsed.enclosing[i], nonce_digits)) return false;
  target = parsed;
  return true;
}

/// The dead, as its record tells.
struct dead_owner {
  process_identity process = {};
  std::string_view mark = {};                  ///< mark_text(); empty: it had none
  uid_t record_user = static_cast<uid_t>(-1);  ///< who owns the record's file: only processes of
                                               ///< this user are ended, whatever the record says
  int stop_signal = SIGTERM;
  std::chrono::milliseconds grace{5'000};
};

/// What a sweep has done.
struct sweep_result {
  int left = 0;                     ///< strays that are still alive: they could not be ended, or not in time
  int signalled = 0;                ///< processes that were sent a signal
  int spared = 0;                   ///< that carry the mark and were left alone
  bool conclusive = true;           ///< false: /proc can't be read, or processes came and went too fast
  owned<stray_report> report = {};  ///< each of them; empty if nothing was looked for
};

/// Ends what still carries a dead owner's mark: its stop signal, its grace, SIGKILL, at most 10 s
/// more. Errors: not_enough_memory, of reading /proc; what can't be ended is no error, see the result.
inline sweep_result sweep_dead_owner(const dead_owner& owner, std::error_code& ec) noexcept {
  ec.clear();
  sweep_result result;
  if (!platform::can_inspect_processes || !owner.process.complete()) return result;
  const process_identity here = process_identity::self();
  if (owner.process.boot != here.boot || owner.process.pid_namespace != here.pid_namespace || is_alive(owner.process))
    return result;
  stray_target target;
  if (!parse_mark_text(owner.mark, target)) return result;
  target.owner = owner.process.pid;
  target.owner_start = owner.process.start_time;
  target.acquired = owner.process.start_time;
  target.user = owner.record_user;
  target.pid_namespace = here.pid_namespace;
  target.stranger = true;
  const owned<stray_buffers> memory(new (std::nothrow) stray_buffers);
  result.report = owned<stray_report>(new (std::nothrow) stray_report);
  if (!memory || !result.report) {
    ec = std::make_error_code(std::errc::not_enough_memory);
    return result;
  }
  stray_report& report = *result.report;
  const deadline grace_end(owner.grace);
  std::int64_t pause = 1'000'000;
  bool killing = false;
  deadline end = grace_end;
  for (;;) {
    const int count = strays_signal(target, killing ? SIGKILL : owner.stop_signal, *memory, report);
    result.left = count > 0 ? count : 0;
    result.conclusive = report.conclusive;
    if (count < 0) {
      ec = system_error(count);
      result.conclusive = false;
      break;
    }
    if (count == 0 && report.conclusive) break;
    if (end.passed()) {
      if (killing) break;
      killing = true;
      end = deadline(std::chrono::seconds(10));
      pause = 1'000'000;
      continue;
    }
    const std::int64_t left = end.left();
    platform::sys::sleep_for(left >= 0 && left < pause ? left : pause);
    if (pause < 20'000'000) pause *= 2;
  }
  for (int i = 0; i < report.count; ++i) {
    const stray_event& each = report.events[i];
    const bool sent = each.fate == stray_fate::signalled && each.signal != 0;
    bool first = each.fate != stray_fate::answers;
    for (int k = 0; k < i; ++k)
      if (report.events[k].fate != stray_fate::answers && report.events[k].pid == each.pid &&
          report.events[k].start_time == each.start_time)
        first = false;
    if (!first) continue;
    if (sent) ++result.signalled;
    else if (each.fate != stray_fate::refused) ++result.spared;
  }
  return result;
}

}  // namespace instance_guard::detail
