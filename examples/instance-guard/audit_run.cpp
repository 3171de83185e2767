// `audit` in the program that takes the census: takes it, and tells it as it was asked to.
#include <pwd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <instance_guard/pid_lockfile.hpp>

#include "audit_report.hpp"
#include "census_commands.hpp"
#include "helper_programs.hpp"
#include "last_ghost.hpp"
#include "text.hpp"

namespace tool {
namespace {

using namespace instance_guard;

constexpr char webhook_variable[] = "INSTANCE_GUARD_WEBHOOK";

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "this host";
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

/// The names that are held; what can't be read is left out, as it is no part of the census.
std::vector<lock_view> locks_now() {
  std::vector<lock_view> result;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    lock_options options;
    options.scope = scope;
    std::error_code ec;
    const std::vector<lock_status> all = list_locks(options, ec);
    for (const lock_status& each : all)
      if (each.explanation.empty()) result.push_back(view_of(each, all));
  }
  return result;
}

audit_report take_report(const audit_arguments& arguments) {
  audit_report report;
  report.census = take_census_now(arguments.census);
  if (arguments.discord || !arguments.prometheus.empty()) report.locks = locks_now();
  report.host = host_name();
  report.user = user_name();
  report.all_users = arguments.census.all_users;
  if (report.all_users) report.again += " --all-users";
  if (arguments.census.min_age != census_arguments().min_age) report.again += " --min-age " + arguments.census.min_age;
  report.verbose = arguments.verbose;
  report.exit_code = exit_code_of(report.census);
  return report;
}

/// Only the messages tell it, so only they keep it: other outputs leave nothing behind. That it
/// can't be kept is no fault of the audit.
void recall_last_ghost(audit_report& report) {
  const std::string directory = state_directory();
  if (report.ghosts() == 0) {
    report.last_ghost = read_last_ghost(directory, report.census.taken_at);
    return;
  }
  const std::string fault = write_last_ghost(directory, report.census.taken_at);
  if (!fault.empty())
    std::fprintf(stderr, "instance-guard: warning: the time of this ghost is not kept: %s\n", shown(fault).c_str());
}

void tell_discord(const audit_arguments& arguments, const audit_report& report) {
  if (arguments.only_ghosts && report.exit_code == 0) return;
  const std::vector<std::string> payloads = audit_discord(report);
  const char* variable = std::getenv(webhook_variable);
  const std::string address = !arguments.webhook_file.empty() ? read_webhook_file(arguments.webhook_file)
                                                              : std::string(variable != nullptr ? variable : "");
  if (address.empty()) {
    for (const std::string& each : payloads) print(each + "\n");
    return;
  }
  // What is started to post gets it by a pipe; nobody else is to inherit it.
  ::unsetenv(webhook_variable);
  post(address, payloads);
  print("posted " + counted(payloads.size(), "message", "messages") + "\n");
}

}  // namespace

int audit(const audit_arguments& arguments, const invocation&) {
  audit_report report = take_report(arguments);
  if (arguments.discord) recall_last_ghost(report);
  if (!arguments.prometheus.empty()) write_prometheus(arguments.prometheus, audit_prometheus(report));
  if (arguments.json) print(audit_json(report));
  else if (arguments.discord) tell_discord(arguments, report);
  else if (arguments.nagios) print(audit_nagios(report));
  else if (arguments.prometheus.empty()) print(audit_text(report, columns() < 120 ? 80 : 120));
  return report.exit_code;
}

}  // namespace tool
