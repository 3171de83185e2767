#include "census_options.hpp"

#include <regex.h>

#include <CLI/CLI.hpp>

#include <cstdlib>

#include "duration_option.hpp"

namespace tool {
namespace {

using namespace instance_guard;

std::string check_pattern(const std::string& pattern) {
  if (pattern.empty()) return "an empty pattern is everybody's";
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

}  // namespace

void add_census_options(CLI::App& sub, census_arguments& to) {
  sub.add_option("--ignore", to.ignore, "Regular expression on the arguments: never a ghost")
      ->check(check_pattern)
      ->type_name("PATTERN")
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
  add_duration_option(sub, "--min-age", to.min_age, "Younger ones are no orphans or duplicates (default 10m)");
}

void add_audit_options(CLI::App& sub, census_arguments& to) {
  sub.add_flag("--all-users", to.all_users, "Everybody's processes, not just one's own");
  sub.add_option("--kind", to.kinds, "Only ghosts of this kind; may be repeated")
      ->check(CLI::IsMember({"zombie", "orphan", "duplicate", "stale"}))
      ->type_name("zombie|orphan|duplicate|stale")
      ->allow_extra_args(false);
  add_duration_option(sub, "--older-than", to.older_than, "Threshold of the note long-running (default 24h)");
  add_duration_option(sub, "--zombie-wait", to.zombie_wait, "How long a zombie must stay one (default 2s)");
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
  const bool is_number =
      !count.empty() && count.size() < 7 && count.find_first_not_of("0123456789") == std::string::npos;
  if (is_number && last > 0) {
    result.count = static_cast<std::size_t>(std::strtoul(count.c_str(), nullptr, 10));
    result.pattern.erase(last);
  }
  const std::string fault = check_pattern(result.pattern);
  if (!fault.empty()) throw CLI::ValidationError(fault);
  return result;
}

}  // namespace tool
