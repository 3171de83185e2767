// layer 3: what a dead holder's warden has not ended yet, named for whoever is refused because of it.
//
// A look at /proc: it informs, and ends nobody. Allocates.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <system_error>

#include "../file_descriptor.hpp"
#include "../pid_lockfile_types.hpp"
#include "../platform/platform.hpp"
#include "printable_text.hpp"
#include "process_descendants.hpp"
#include "text.hpp"

namespace instance_guard::detail {

/// "pid 4711 (feed, another user's)"; empty: it has ended meanwhile.
inline std::string left_over_text(const process_identity& who) {
  platform::process_view view;
  if (platform::open_process(who.pid, view) != 0) return {};
  const file_descriptor held(view.directory);
  platform::process_stat facts;
  uid_t user = 0;
  if (platform::view_stat(view, facts) != 0 || facts.start_time != who.start_time) return {};
  const char* why = "";
  if (platform::view_user(view, user) == 0 && user != ::geteuid()) why = ", another user's";
  else if (facts.state == 'D') why = ", in uninterruptible sleep";
  else if (facts.state == 't') why = ", held by a debugger";
  return joined({"pid ", std::to_string(who.pid), " (", printable(facts.name), why, ")"});
}

/// How many there are, as far as can be seen.
inline std::size_t count_left_over(const lock_record& dead) {
  std::error_code ec;
  if (!dead.warden || !is_alive_here(dead.warden)) return 0;
  return descendants_of(&dead.warden.pid, 1, ec).size();
}

/// The first four of them, "pid 4711 (feed), pid 4712 (feed), ..."; empty: none, or it can't be told.
inline std::string left_over_text(const lock_record& dead) {
  std::error_code ec;
  std::string text;
  if (!dead.warden || !is_alive_here(dead.warden)) return text;
  int told = 0;
  for (const process_identity& each : descendants_of(&dead.warden.pid, 1, ec)) {
    const std::string one = left_over_text(each);
    if (one.empty()) continue;
    text.append(text.empty() ? "" : ", ").append(++told > 4 ? "..." : one);
    if (told > 4) break;
  }
  return text;
}

}  // namespace instance_guard::detail
