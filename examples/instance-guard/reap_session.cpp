// reap --session ID: ends what a session left behind, also one that was killed.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "reap_session.hpp"
#include "session_scan.hpp"
#include "text.hpp"

namespace tool {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// What was met, each process once.
struct harvest {
  std::vector<marked_process> ended = {};
  std::vector<marked_process> kept = {};

  static bool has(const std::vector<marked_process>& list, const marked_process& one) {
    return std::any_of(list.begin(), list.end(), [&](const marked_process& each) { return each.who == one.who; });
  }
};

void oldest_first(std::vector<marked_process>& list) {
  std::stable_sort(list.begin(), list.end(), [](const marked_process& a, const marked_process& b) {
    return a.who.start_time < b.who.start_time;
  });
}

std::string table(const std::vector<marked_process>& list, bool reasons) {
  constexpr std::size_t indent = 20;
  std::string text = "  PID      AGE      COMMAND\n";
  for (const marked_process& each : list) {
    text += row(cell(std::to_string(each.who.pid), 7) + "  " + age(age_of(each.who)), each.command, indent);
    if (reasons) text += row("  why", each.kept, indent);
  }
  return text;
}

std::string kept_text(const harvest& found, const char* verb) {
  // That this command itself carries the mark of its session is no news.
  std::vector<marked_process> told;
  for (const marked_process& each : found.kept)
    if (each.who.pid != ::getpid()) told.push_back(each);
  if (told.empty()) return {};
  return std::string(verb) + " " + counted(told.size(), "process", "processes") + ":\n" + table(told, true);
}

std::string unseen_text(const session_scan& scan) {
  if (scan.unreadable() == 0) return {};
  return "not seen: " + counted(scan.unreadable(), "process", "processes") + " of this user that can't be read\n";
}

/// Everything marked, without touching it.
harvest look(session_scan& scan) {
  harvest found;
  const auto visit = [&](const marked_process& each) {
    auto& list = each.kept.empty() ? found.ended : found.kept;
    if (!harvest::has(list, each)) list.push_back(each);
  };
  for (int tries = 0; tries < 20 && !scan.look(visit); ++tries) std::this_thread::sleep_for(milliseconds(5));
  std::erase_if(found.ended, [](const marked_process& each) { return !is_alive(each.who); });
  for (auto* list : {&found.ended, &found.kept}) oldest_first(*list);
  return found;
}

/// SIGTERM, the grace, SIGKILL until a look meets none; children that appear meanwhile as well.
/// True if none is left.
bool end_all(session_scan& scan, milliseconds grace, harvest& found) {
  const auto begin = steady_clock::now();
  const milliseconds capped = std::min(grace, milliseconds(86'400'000));
  const auto kill_at = begin + capped;
  const auto give_up_at = kill_at + milliseconds(10'000);
  int clean = 0;      // looks in a row that met none
  int unsettled = 0;  // ... of which the last ones were not sure
  while (clean < 2) {
    const bool kill = steady_clock::now() >= kill_at;
    std::size_t met = 0;
    const bool settled = scan.look([&](const marked_process& each) {
      if (!each.kept.empty()) {
        if (!harvest::has(found.kept, each)) found.kept.push_back(each);
        return;
      }
      ++met;
      const bool known = harvest::has(found.ended, each);
      if (known && !kill) return;
      std::error_code ec;
      if (!known) found.ended.push_back(each);
      if (kill) {
        scan.send(each, SIGKILL, ec);
      } else if (scan.send(each, SIGTERM, ec)) {
        scan.send(each, SIGCONT, ec);  // one that is stopped hears it too
      }
    });
    unsettled = met == 0 && !settled ? unsettled + 1 : 0;
    constexpr int most = 50;  // something else on this host executes programs all the time
    clean = met == 0 && (settled || unsettled >= most) ? clean + 1 : 0;
    if (steady_clock::now() >= give_up_at) return met == 0;
    if (clean == 0) std::this_thread::sleep_for(milliseconds(kill ? 1 : 20));
  }
  return true;
}

}  // namespace

int reap_session(const std::string& id, milliseconds grace, bool dry_run) {
  // Of processes that nobody can see it must not be said that none is left.
  if (all_processes().empty()) throw std::runtime_error("processes can't be listed: is /proc mounted?");
  session_scan scan(id);
  const std::string session = "session " + shown(id);
  if (dry_run) {
    const harvest found = look(scan);
    std::string text = session + ": would end " + counted(found.ended.size(), "process", "processes") + "\n";
    if (!found.ended.empty())
      text += table(found.ended, false) +
              row("  why",
                  std::string(session_variable) + "=" + shown(id) + " in its environment, this user's, no service", 20);
    print(text + kept_text(found, "would keep") + unseen_text(scan));
    return 0;
  }
  harvest found;
  const bool empty = end_all(scan, grace, found);
  for (auto* list : {&found.ended, &found.kept}) oldest_first(*list);
  std::vector<marked_process> left;
  for (const marked_process& each : found.ended)
    if (is_alive(each.who)) left.push_back(each);
  std::erase_if(found.ended, [](const marked_process& each) { return is_alive(each.who); });
  std::string text = session + ": ended " + counted(found.ended.size(), "process", "processes") + "\n";
  if (!found.ended.empty()) text += table(found.ended, false);
  print(text + kept_text(found, "kept") + unseen_text(scan));
  if (empty && left.empty()) return 0;
  const std::string fact = session + ": " + counted(left.size(), "process", "processes") + " could not be ended\n";
  std::fputs((fact + (left.empty() ? "" : table(left, false))).c_str(), stderr);
  return 1;
}

}  // namespace tool
