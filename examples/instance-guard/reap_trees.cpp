#include "reap_trees.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <thread>

#include "process_facts.hpp"
#include "process_text.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* of_another_user = "another user's";

/// Why this descendant stays; empty: it does not. `above` manages its parent, which ends: what is of
/// the same service ends with that.
std::string why_kept(const process_table& table, const process_info& row, const process_manager& manager,
                     const process_manager& above) {
  const std::vector<pid_t> kin = own_line();
  if (row.id.pid == 1 || std::find(kin.begin(), kin.end(), row.id.pid) != kin.end())
    return row.id.pid == ::getpid() ? "this command itself" : "this command is below it";
  if (row.user != ::geteuid()) return of_another_user;
  if (manager.is_service() && (manager.kind != above.kind || manager.name != above.name))
    return "a service: " + shown(manager.text());
  read_options markers;
  markers.markers = true;
  std::error_code ec;
  const process_details details = table.details(row, markers, ec);
  if (const std::string* keep = details.marker("INSTANCE_GUARD_KEEP"); keep != nullptr && *keep == "1")
    return "INSTANCE_GUARD_KEEP=1: it is meant to stay";
  return {};
}

bool would_be_started_again(const process_manager& who) {
  return who.kind == manager_kind::unit || who.kind == manager_kind::user_unit || who.kind == manager_kind::launchd ||
         who.kind == manager_kind::container || who.kind == manager_kind::supervisor;
}

bool lives(const process_table& table, const process_identity& who) {
  const process_info* row = table.find(who);
  return row != nullptr && !row->ended();
}

void send(doomed_process& target, int number) {
  std::error_code ec;
  process_handle handle = process_handle::open(target.who, ec);
  if (ec) return;
  handle.signal(number, ec);
  // One that is stopped hears it too.
  if (!ec && number == SIGTERM) handle.signal(SIGCONT, ec);
  if (ec == std::errc::operation_not_permitted) target.kept = "not permitted";
}

}  // namespace

std::string why_not_ended(const ghost& found, const census_entry& entry) {
  const std::vector<pid_t> kin = own_line();
  if (std::find(kin.begin(), kin.end(), entry.process.id.pid) != kin.end()) return "this command is below it";
  if (entry.process.user != ::geteuid()) return of_another_user;
  if (found.kind == ghost_kind::zombie)
    return "a zombie has ended already; its parent " + std::to_string(entry.process.parent) + " does not reap it";
  if (entry.keep) return "of " + shown(found.program) + " it is the one to keep";
  if (would_be_started_again(entry.managed_by))
    return shown(entry.managed_by.text()) + " would start it again" +
           (found.remedy.empty() ? "" : ": " + shown(found.remedy));
  return {};
}

void add_descendants(std::vector<doomed_process>& all, const process_table& table) {
  const auto index_of = [&](const process_info& row) { return static_cast<std::size_t>(&row - table.begin()); };
  std::vector<process_manager> managers;  // of all, in the order of the table; only if one is asked for
  for (std::size_t i = 0; i < all.size(); ++i) {
    const doomed_process above = all[i];
    // Children of a pid are its own only while it is the same process.
    const process_info* parent = table.find(above.who);
    if (!above.kept.empty() || parent == nullptr || parent->ended()) continue;
    for (const process_info& row : table.children_of(above.who.pid)) {
      const bool known =
          std::any_of(all.begin(), all.end(), [&](const doomed_process& each) { return each.who == row.id; });
      if (known || row.ended() || row.id.start_time < above.who.start_time) continue;
      if (managers.empty()) {
        census_options everybody;
        everybody.all_users = true;
        managers = managers_of(table, everybody);
      }
      doomed_process child;
      child.who = row.id;
      child.command = command_of(row.id.pid);
      child.why = "below pid " + std::to_string(above.who.pid);
      child.kept = why_kept(table, row, managers[index_of(row)], managers[index_of(*parent)]);
      all.push_back(std::move(child));
    }
  }
}

std::vector<doomed_process> end_trees(std::vector<doomed_process>& all, milliseconds grace) {
  const auto kill_at = steady_clock::now() + std::min(grace, milliseconds(86'400'000));
  const auto give_up_at = kill_at + milliseconds(10'000);
  for (;;) {
    const process_table table = process_table::read();
    add_descendants(all, table);
    const auto now = steady_clock::now();
    std::vector<doomed_process> left;
    for (doomed_process& each : all) {
      if (!each.kept.empty() || !lives(table, each.who)) continue;
      if (now >= kill_at) send(each, SIGKILL);
      else if (!each.signalled) send(each, SIGTERM);
      each.signalled = true;
      left.push_back(each);
    }
    if (left.empty() || now >= give_up_at) return left;
    std::this_thread::sleep_for(milliseconds(now >= kill_at ? 2 : 20));
  }
}

}  // namespace tool
