// layer 3: NAME.refused: who was refused, beside the lock, at most 4 KiB, the oldest go.
//
// Without it the incident returns inside out: a forgotten copy holds the name, the service
// manager's copy is refused every ten seconds for a week, and nobody sees it.
//
//   1774141080 88120 terminal /dev/pts/3       seconds since 1970, pid, where it came from
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <chrono>
#include <string>
#include <string_view>

#include "../file_descriptor.hpp"
#include "lock_file.hpp"
#include "lock_name.hpp"
#include "lock_record.hpp"
#include "unix_time.hpp"

namespace instance_guard::detail {

/// Adds a line for this process. What goes wrong is dropped: the refusal itself is what matters.
inline void note_refusal(int directory, const lock_name& name, const std::string& origin) {
  namespace sys = platform::sys;
  const lock_file_name file(name.view(), refused_suffix);
  constexpr int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  lock_change_scope scope;  // no signal, no fork in between; SIGXFSZ consumed
  const file_descriptor log(sys::openat(directory, file.text, flags, 0600));
  struct stat facts = {};
  if (!log || sys::fstat(log.get(), &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_nlink != 1 ||
      facts.st_uid != sys::geteuid())
    return;
  int locked = platform::flock_now(log.get(), LOCK_EX);
  for (int tries = 0; locked == -EWOULDBLOCK && tries < 20; ++tries) {
    sys::sleep_for(1'000'000);
    locked = platform::flock_now(log.get(), LOCK_EX);
  }
  if (locked != 0) return;
  record_text line;
  record_writer to(line, 0);
  to.number(static_cast<std::uint64_t>(unix_milliseconds(std::chrono::system_clock::now()) / 1000));
  to.text(" ");
  to.number(static_cast<std::uint64_t>(sys::getpid()));
  to.text(" ");
  std::string from = origin.substr(0, 200);
  for (std::size_t i = 0; i < from.size(); ++i)
    if (static_cast<unsigned char>(from[i]) < 0x20 || from[i] == 0x7f) from[i] = '?';
  to.text(from);
  to.line_end();

  record_text old;
  read_record_file(log.get(), old);
  std::string_view kept = old.view();
  if (old.size > max_record) kept = {};  // not ours
  while (kept.size() + line.size > max_record) {
    const std::size_t end = kept.find('\n');
    kept.remove_prefix(end == std::string_view::npos ? kept.size() : end + 1);
  }
  record_text all;
  std::memcpy(all.bytes, kept.data(), kept.size());
  std::memcpy(all.bytes + kept.size(), line.bytes, line.size);
  all.size = kept.size() + line.size;
  write_record_file(log.get(), all, old, scope);
}

}  // namespace instance_guard::detail
