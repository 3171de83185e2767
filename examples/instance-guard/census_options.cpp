#include "census_options.hpp"

#include <regex.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <thread>

#include "helper_programs.hpp"
#include "duration_option.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

std::string check_pattern(const std::string& pattern) {
  regex_t compiled;
  const int fault = ::regcomp(&compiled, pattern.c_str(), REG_EXTENDED | REG_NOSUB);
  if (fault == 0) {
    ::regfree(&compiled);
    return {};
  }
  char text[256];
  ::regerror(fault, &compiled, text, sizeof text);
  return "'" + pattern + "' is no regular expression: " + text;
}

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
  for (const std::string& each : arguments.services)
    result.services.push_back(parse_service(each));
  result.commits_between = commit_counter();
  return result;
}

/// Whether a second look would tell anything.
bool has_zombies(const process_table& table, const census_options& options) {
  const bool wanted = options.kinds.empty() || std::count(options.kinds.begin(), options.kinds.end(),
                                                          ghost_kind::zombie) > 0;
  return wanted && std::any_of(table.begin(), table.end(), [&](const process_info& each) {
           return each.ended() && (options.all_users || each.user == ::geteuid());
         });
}

/// Waits; on a terminal with a line that says how long, and goes again.
void wait_for_zombies(milliseconds how_long) {
  const auto end = steady_clock::now() + how_long;
  const bool told = ::isatty(STDERR_FILENO) != 0;
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0) break;
    if (told)
      std::fprintf(stderr, "\rlooking again in %.1f s, to see which zombies stay ",
                   static_cast<double>(left.count()) / 1000);
    std::this_thread::sleep_for(std::min(left, milliseconds(100)));
  }
  if (told) std::fputs("\r\x1b[K", stderr);
}

}  // namespace

void add_census_options(CLI::App& sub, census_arguments& to) {
  sub.add_option("--ignore", to.ignore, "Regular expression on the arguments: never a ghost")
      ->check(check_pattern)
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  add_duration_option(sub, "--min-age", to.min_age,
                      "Younger ones are no orphans or duplicates (default 10m)");
  sub.add_flag("--all-users", to.all_users, "Everybody's processes, not just one's own");
}

void add_audit_options(CLI::App& sub, census_arguments& to) {
  sub.add_option("--kind", to.kinds, "Only ghosts of this kind; may be repeated")
      ->check(CLI::IsMember({"zombie", "orphan", "duplicate", "stale"}))
      ->type_name("zombie|orphan|duplicate|stale")
      ->allow_extra_args(false);
  sub.add_option("--service", to.services,
                 "What should run COUNT times (default 1): PATTERN is a regular expression on the "
                 "arguments; may be repeated")
      ->check([](const std::string& text) {
        try {
          parse_service(text);
          return std::string();
        } catch (const CLI::Error& error) {
          return std::string(error.what());
        }
      })
      ->type_name("NAME=PATTERN[=COUNT]")
      ->allow_extra_args(false);
  add_duration_option(sub, "--older-than", to.older_than,
                      "Threshold of the note long-running (default 24h)");
  add_duration_option(sub, "--zombie-wait", to.zombie_wait,
                      "How long a zombie must stay one (default 2s)");
}

service_rule parse_service(const std::string& text) {
  service_rule result;
  const std::size_t sign = text.find('=');
  if (sign == std::string::npos || sign == 0 || sign + 1 == text.size())
    throw CLI::ValidationError("'" + text + "' is not NAME=PATTERN[=COUNT]");
  result.name = text.substr(0, sign);
  result.pattern = text.substr(sign + 1);
  const std::size_t last = result.pattern.rfind('=');
  const std::string count = last == std::string::npos ? "" : result.pattern.substr(last + 1);
  const bool is_number = !count.empty() && count.size() < 7 &&
                         count.find_first_not_of("0123456789") == std::string::npos;
  if (is_number && last > 0) {
    result.count = static_cast<std::size_t>(std::strtoul(count.c_str(), nullptr, 10));
    result.pattern.erase(last);
  }
  const std::string fault = check_pattern(result.pattern);
  if (!fault.empty()) throw CLI::ValidationError(fault);
  return result;
}

census take_census_now(const census_arguments& arguments) {
  const census_options options = options_of(arguments);
  const process_table earlier = process_table::read();
  const milliseconds wait = parse_duration(arguments.zombie_wait).value_or(milliseconds(2'000));
  if (!has_zombies(earlier, options)) return take_census(earlier, nullptr, options);
  wait_for_zombies(std::min(wait, milliseconds(3'600'000)));
  const process_table now = process_table::read();
  return take_census(now, &earlier, options);
}

}  // namespace tool
