// A census of now, from what the command line asks for.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "census_options.hpp"
#include "duration.hpp"
#include "helper_programs.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

seconds seconds_of(const std::string& duration) {
  const milliseconds value = parse_duration(duration).value_or(milliseconds(0));
  // "forever" and the like: more than anybody's age, and no overflow.
  return std::min(std::chrono::duration_cast<seconds>(value), seconds(100LL * 365 * 86'400));
}

ghost_kind kind_of(const std::string& text) {
  for (const ghost_kind each : {ghost_kind::zombie, ghost_kind::orphan, ghost_kind::duplicate})
    if (text == to_string(each)) return each;
  return ghost_kind::stale;
}

census_options options_of(const census_arguments& arguments) {
  census_options result;
  result.min_age = seconds_of(arguments.min_age);
  result.older_than = seconds_of(arguments.older_than);
  result.ignore = arguments.ignore;
  result.all_users = arguments.all_users;
  for (const std::string& each : arguments.kinds) result.kinds.push_back(kind_of(each));
  for (const std::string& each : arguments.services) result.services.push_back(parse_service(each));
  result.commits_between = commit_counter();
  return result;
}

/// Whether a second look would tell anything.
bool has_zombies(const process_table& table, const census_options& options) {
  const bool wanted =
      options.kinds.empty() || std::count(options.kinds.begin(), options.kinds.end(), ghost_kind::zombie) > 0;
  return wanted && std::any_of(table.begin(), table.end(), [&](const process_info& each) {
           return each.ended() && (options.all_users || each.user == ::geteuid());
         });
}

/// Waits; on a terminal with a line that says how long, and goes again. A line that wrapped would
/// not: of a narrow one the end is left out.
void wait_for_zombies(milliseconds how_long) {
  const auto end = steady_clock::now() + how_long;
  const int told = static_cast<int>(terminal_columns(STDERR_FILENO));
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0) break;
    if (told > 0) {
      char line[80];
      std::snprintf(line, sizeof line, "looking again in %.1f s, to see which zombies stay ",
                    static_cast<double>(left.count()) / 1000);
      std::fprintf(stderr, "\r%.*s", told - 1, line);
    }
    std::this_thread::sleep_for(std::min(left, milliseconds(100)));
  }
  if (told > 0) std::fputs("\r\x1b[K", stderr);
}

/// Another audit at the same time is no second one of a service.
census without_audits(census found) {
  std::error_code ec;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", ec).string();
  std::erase_if(found.ghosts, [&](const ghost& each) {
    return each.kind == ghost_kind::duplicate && !self.empty() &&
           std::all_of(each.processes.begin(), each.processes.end(),
                       [&](const census_entry& entry) { return entry.executable == self; });
  });
  return found;
}

}  // namespace

census take_census_now(const census_arguments& arguments) {
  const census_options options = options_of(arguments);
  const process_table earlier = process_table::read(census_read_options(options));
  const milliseconds wait = parse_duration(arguments.zombie_wait).value_or(milliseconds(2'000));
  if (!has_zombies(earlier, options)) return without_audits(take_census(earlier, nullptr, options));
  wait_for_zombies(std::min(wait, milliseconds(3'600'000)));
  const process_table now = process_table::read(census_read_options(options));
  return without_audits(take_census(now, &earlier, options));
}

}  // namespace tool
