#include "session_scan.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include "process_text.hpp"

namespace tool {

using instance_guard::process_handle;
using instance_guard::process_identity;
using std::chrono::steady_clock;

session_scan::session_scan(std::string id) : id_(std::move(id)) { note_kin(); }

/// Whoever was above this process once is never ended, also if its line is another by now.
void session_scan::note_kin() {
  for (const pid_t each : own_line())
    if (!is_kin(each)) kin_.push_back(each);
}

bool session_scan::is_kin(pid_t pid) const {
  return pid == 1 || std::find(kin_.begin(), kin_.end(), pid) != kin_.end();
}

session_scan::answer session_scan::judge(pid_t pid, marked_process& out) {
  process_facts facts;
  std::error_code ec;
  const process_identity who = process_identity::of(pid, ec);
  if (ec || !read_facts(pid, facts) || !facts.is_leader || facts.ended()) return answer::no;
  const bool own = facts.belongs_to(::geteuid());
  const environment carried = read_environment(facts);
  if (carried.how == environment::reading::denied) return own && !is_kin(pid) ? answer::unreadable : answer::no;
  constexpr pid_t kernel_threads = 2;
  if (carried.how == environment::reading::none_now)
    return own && pid != kernel_threads && facts.parent != kernel_threads ? answer::again : answer::no;
  const std::string prefix = std::string(session_variable) + "=";
  bool ours = false;
  bool other = false;
  bool keep = false;
  for (const std::string& each : carried.entries) {
    if (each == prefix + id_) ours = true;
    else if (each.compare(0, prefix.size(), prefix) == 0) other = true;
    if (each == "INSTANCE_GUARD_KEEP=1") keep = true;
  }
  if (!ours) return answer::no;
  out = {who, command_of(pid), {}};
  const std::string service = service_of(pid);
  if (is_kin(pid)) out.kept = pid == ::getpid() ? "this command itself" : "this command is below it";
  else if (!own) out.kept = "not (only) this user's";
  else if (other) out.kept = "it carries another session's mark as well";
  else if (keep) out.kept = "INSTANCE_GUARD_KEEP=1: it is meant to stay";
  else if (!service.empty()) out.kept = "a service: " + service;
  else if (!who.complete()) out.kept = "its start time can't be read";
  // All that was read is of one process if it is still the same one.
  const process_identity now = process_identity::of(pid, ec);
  return !ec && now == who ? answer::yes : answer::again;
}

bool session_scan::look(const std::function<void(const marked_process&)>& visit) {
  note_kin();
  unreadable_ = 0;
  bool settled = true;
  const auto look_at = [&](pid_t pid) {
    marked_process found;
    switch (judge(pid, found)) {
      case answer::yes: visit(found); break;
      case answer::again: settled = false; break;
      case answer::unreadable: ++unreadable_; break;
      case answer::no: break;
    }
  };
  // A list of processes is not a moment: what is listed may end and leave a child that was not.
  // Numbers are given out in turn, so those given out since are looked at until there are none.
  pid_t newest = last_number();
  for (const pid_t each : all_processes()) look_at(each);
  const auto end = steady_clock::now() + std::chrono::milliseconds(200);
  for (;;) {
    const pid_t now = last_number();
    if (now == newest) return settled;
    // Numbers have started anew, or come faster than they can be looked at.
    if (newest == 0 || now < newest || now - newest > 100'000 || steady_clock::now() > end) return false;
    while (newest < now) look_at(++newest);
  }
}

bool session_scan::send(const marked_process& target, int number, std::error_code& fault) {
  process_handle handle = process_handle::open(target.who, fault);
  if (fault) return false;
  marked_process again;
  if (judge(target.who.pid, again) != answer::yes || again.who != target.who || !again.kept.empty()) return false;
  // Alive after it was read: so nobody else can have had its number meanwhile.
  if (!handle.alive()) return false;
  handle.signal(number, fault);
  return !fault;
}

std::chrono::seconds age_of(const process_identity& who) {
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  const long ticks = ::sysconf(_SC_CLK_TCK);
  const auto started = ticks > 0 ? static_cast<std::int64_t>(who.start_time) / ticks : 0;
  return std::chrono::seconds(static_cast<std::int64_t>(now.tv_sec) - started);
}

}  // namespace tool
