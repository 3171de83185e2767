// layer 5: what a refused start says. The fact first, then who, then what to type.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "../pid_lockfile_class.hpp"
#include "age_text.hpp"
#include "left_over.hpp"
#include "lock_code.hpp"
#include "lock_name.hpp"
#include "printable_text.hpp"

namespace instance_guard::detail {

/// Arguments that a shell would read back as they are.
inline std::string command_text(const lock_record& record) {
  std::string text;
  for (const std::string& each : record.arguments) {
    if (!text.empty()) text += ' ';
    const bool plain =
        !each.empty() &&
        each.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-") ==
            std::string::npos;
    if (plain) {
      text += each;
      continue;
    }
    text += '\'';
    const std::string shown = printable(each);
    for (const char c : std::string_view(shown)) {
      if (c == '\'') text.append("'\\'", 3);  // out of the quotes and in again
      text += c;
    }
    text += '\'';
  }
  return text.empty() ? record.executable : text;
}

/// "unit shiva.service" of "systemd unit shiva.service": how its manager calls the holder.
inline std::string stop_command(const lock_record& record) {
  constexpr std::string_view unit = "systemd unit ";
  constexpr std::string_view user_unit = "systemd user unit ";
  const std::string_view from = record.started_from;
  if (same(from.substr(0, unit.size()), unit)) return joined({"systemctl stop ", from.substr(unit.size())});
  if (same(from.substr(0, user_unit.size()), user_unit))
    return joined({"systemctl --user stop ", from.substr(user_unit.size())});
  return {};
}

/// ", for 7d 2h"; nothing where the record is lost, and only the process is known.
inline std::string held_for(const lock_record& record, const char* between) {
  if (record.acquired_at.time_since_epoch().count() == 0) return {};
  return joined({", for ", age_since(record.acquired_at, between)});
}

/// A holder whose terminal was closed goes on, and nobody sees it: "terminal /dev/pts/3" that is there no more.
inline bool is_terminal_closed(const lock_record& record) {
  constexpr std::string_view terminal = "terminal /dev/";
  const std::string_view from = record.started_from;
  if (!same(from.substr(0, terminal.size()), terminal)) return false;
  const std::string path(from.substr(9, from.substr(9).find(' ')));
  struct stat facts = {};
  return record.process.pid_namespace == process_identity::self().pid_namespace && ::stat(path.c_str(), &facts) != 0 &&
         errno == ENOENT;
}

/// The refusal, with a final newline: several lines for a terminal, one otherwise. `name` is what the start is called
/// by, `taken` the one of its names that it did not get, `not_stopped` why the holder was not replaced.
inline std::string refusal_text(std::string_view name, std::string_view taken, std::error_code why,
                                const std::optional<lock_record>& holder, const std::string& own_version, int exit_code,
                                bool terminal, std::string_view not_stopped = {}) {
  const std::string code = std::to_string(exit_code);
  const bool cleaning = is(why, errc::still_cleaning_up);
  const bool further = !same(lock_name(name).view(), lock_name(taken).view());
  const std::string running = further ? joined({taken, " is held already"}) : "already running";
  const std::string last_run = further ? joined({"the last run that held ", taken}) : "the last run";
  if (!holder || holder->process.pid <= 0) {
    const std::string fact = cleaning ? joined({"children of ", last_run, " are still being ended"})
                                      : joined({running, "; its holder's record can't be read"});
    return joined({name, ": ", fact, ", not started (exit ", code, ")\n"});
  }
  const lock_record& record = *holder;
  const std::string pid = std::to_string(record.process.pid);
  const std::string from = printable(record.started_from);
  const std::string left = cleaning ? left_over_text(record) : std::string();
  std::chrono::system_clock::time_point replaced_at;
  const bool replaced = code_replaced_at(record, replaced_at);
  if (!terminal) {
    std::string since;
    if (replaced) since = joined({", its code was replaced ", age_since(replaced_at, ""), " ago"});
    const std::string busy = further ? joined({taken, " is still being cleaned up"}) : "still cleaning up";
    return joined({name, ": ", cleaning ? busy : running, ": pid ", pid, held_for(record, ""), ", started from ", from,
                   record.version.empty() ? "" : ", ", printable(record.version), since, left.empty() ? "" : ", left: ",
                   left, not_stopped.empty() ? "" : ", ", not_stopped, ": exit ", code, "\n"});
  }
  std::string text =
      joined({name, ": ", cleaning ? joined({"children of ", last_run, " are still being ended"}) : running,
              ", not started (exit ", code, ")\n"});
  char host[256] = "this host";
  if (::gethostname(host, sizeof host) == 0) host[sizeof host - 1] = '\0';
  text += joined({"  holder   pid ", pid, " on ", printable(host), ", user ", printable(record.user),
                  held_for(record, " "), "\n"});
  if (!not_stopped.empty()) text += joined({"           ", not_stopped, "\n"});
  text += joined(
      {"  started  from ", from, is_terminal_closed(record) ? ", which is closed: nobody supervises it" : "", "\n"});
  if (!left.empty()) text += joined({"  left     ", left, "\n"});
  text += joined({"  command  ", command_text(record), "   (in ", printable(record.working_directory.native()), ")\n"});
  if (!record.version.empty()) {
    const bool differs = !own_version.empty() && !same(own_version, record.version);
    text += joined(
        {"  version  ", printable(record.version), differs ? ", yours is " : "", differs ? own_version : "", "\n"});
  }
  if (replaced)
    text += joined({"  code     REPLACED ", age_since(replaced_at), " ago: it runs what is no longer on disk\n"});
  std::string stop = stop_command(record);
  if (stop.empty()) stop = joined({"instance-guard stop ", taken});
  text += joined({"  next     instance-guard status ", taken, "\n           ", stop, "      (stops the holder)\n"});
  return text;
}

/// A fault that is no conflict: what, where, and the cure; on a terminal that has a line of its own.
inline std::string fault_text(std::string_view name, std::error_code why, const std::string& explanation, int exit_code,
                              bool terminal) {
  const std::string what = explanation.empty() ? why.message() : explanation;
  constexpr std::string_view cure_line = "\n  cure     ";
  const std::size_t end = what.find(cure_line);
  const std::string fact = printable(std::string_view(what).substr(0, end));
  const std::string cure =
      end == std::string::npos ? std::string() : printable(std::string_view(what).substr(end + cure_line.size()));
  return joined({printable(name.substr(0, 64)), ": cannot start: ", fact, " (exit ", std::to_string(exit_code), ")",
                 cure.empty() ? ""
                 : terminal   ? cure_line
                              : "; cure: ",
                 cure, "\n"});
}

/// "shiva: waiting for 3 children of pid 70240, which is dead, to end, at most 15s".
inline std::string waiting_text(std::string_view name, const std::optional<lock_record>& holder) {
  if (!holder) return joined({name, ": waiting for the children of its last run\n"});
  const std::int64_t grace = holder->grace.count();
  const std::chrono::seconds at_most(grace / 1000 + (grace % 1000 > 0 ? 1 : 0) + 10);
  const std::size_t left = count_left_over(*holder);
  const std::string count = left == 0 ? "the" : std::to_string(left);
  return joined({name, ": waiting for ", count, left == 1 ? " child" : " children", " of pid ",
                 std::to_string(holder->process.pid), ", which is dead, to end, at most ", age_text(at_most), "\n"});
}

/// "shiva: started; the previous run (pid 70240, 7d 2h) did not end cleanly".
inline std::string recovered_text(std::string_view name, const lock_record& last) {
  return joined({name, ": started; the previous run (pid ", std::to_string(last.process.pid), ", started ",
                 age_since(last.acquired_at), " ago) did not end cleanly\n"});
}

/// To stderr, whole, whatever stdio holds back.
inline void say(const std::string& text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    const ssize_t wrote = ::write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    at += static_cast<std::size_t>(wrote);
  }
}

}  // namespace instance_guard::detail
