// The census as gauges, in a file that node_exporter's textfile collector reads.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include <instance_guard/file_descriptor.hpp>

#include "audit_report.hpp"
#include "text.hpp"
#include "write_whole.hpp"

namespace tool {
namespace {

using namespace instance_guard;

constexpr ghost_kind all_kinds[] = {ghost_kind::zombie, ghost_kind::orphan, ghost_kind::duplicate, ghost_kind::stale};

void begin(std::string& text, std::string_view name, std::string_view help) {
  text += "# HELP instance_guard_" + std::string(name) + " " + std::string(help) + "\n";
  text += "# TYPE instance_guard_" + std::string(name) + " gauge\n";
}

/// The value of a label. A backslash that shown() made stands for itself.
std::string label(std::string_view value) {
  std::string result;
  for (const char c : shown(value)) {
    if (c == '\\' || c == '"') result += '\\';
    result += c;
  }
  return result;
}

void add(std::string& text, const std::string& name_and_labels, std::uint64_t value) {
  text += "instance_guard_" + name_and_labels + " " + std::to_string(value) + "\n";
}

void add_ghosts(std::string& text, const audit_report& report) {
  begin(text, "ghost_processes", "Processes that should not be running.");
  for (const ghost_kind kind : all_kinds)
    for (const severity level : {severity::warning, severity::critical}) {
      std::uint64_t count = 0;
      for (const ghost& each : report.census.ghosts)
        if (each.kind == kind && each.level == level)
          for (const census_entry& one : each.processes) count += one.keep ? 0U : 1U;
      add(text,
          "ghost_processes{kind=\"" + std::string(to_string(kind)) + "\",severity=\"" + std::string(to_string(level)) +
              "\"}",
          count);
    }
  begin(text, "ghost_memory_bytes", "Resident memory of these processes.");
  for (const ghost_kind kind : all_kinds) {
    std::uint64_t bytes = 0;
    for (const ghost& each : report.census.ghosts)
      if (each.kind == kind) bytes += each.resident_bytes();
    add(text, "ghost_memory_bytes{kind=\"" + std::string(to_string(kind)) + "\"}", bytes);
  }
  begin(text, "unseen_processes", "Processes of other users, which were not looked at.");
  add(text, "unseen_processes", report.census.unseen);
}

void add_services(std::string& text, const audit_report& report) {
  if (report.census.services.empty()) return;
  begin(text, "service_instances", "How many of a declared service run.");
  for (const service_state& each : report.census.services)
    add(text, "service_instances{service=\"" + label(each.name) + "\"}", each.found);
  begin(text, "service_instances_expected", "How many of it should.");
  for (const service_state& each : report.census.services)
    add(text, "service_instances_expected{service=\"" + label(each.name) + "\"}", each.expected);
}

std::uint64_t unix_seconds(std::chrono::system_clock::time_point at) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch());
  return seconds.count() > 0 ? static_cast<std::uint64_t>(seconds.count()) : 0U;
}

void add_locks(std::string& text, const audit_report& report) {
  if (report.locks.empty()) return;
  const auto labels = [](const lock_view& each) {
    return "{name=\"" + label(each.status.name) + "\",scope=\"" + scope_text(each.status.scope) + "\"}";
  };
  begin(text, "lock_held", "1: a process has this name; 0: its last holder did not end cleanly.");
  for (const lock_view& each : report.locks) {
    const bool held = each.status.state == lock_state::held || each.status.state == lock_state::cleaning_up;
    add(text, "lock_held" + labels(each), held ? 1U : 0U);
  }
  begin(text, "lock_acquired_timestamp_seconds", "When the holder got it.");
  for (const lock_view& each : report.locks)
    if (const auto since = held_since(each.status); since && each.status.state == lock_state::held)
      add(text, "lock_acquired_timestamp_seconds" + labels(each), unix_seconds(*since));
  begin(text, "lock_replaced_code", "1: the holder runs code that has been replaced since.");
  for (const lock_view& each : report.locks)
    add(text, "lock_replaced_code" + labels(each), each.status.replaced_code ? 1U : 0U);
}

[[noreturn]] void fail(const std::string& path, int number) {
  throw std::system_error(number, std::system_category(), "--prometheus " + path);
}

}  // namespace

std::string audit_prometheus(const audit_report& report) {
  std::string text;
  add_ghosts(text, report);
  add_services(text, report);
  add_locks(text, report);
  begin(text, "audit_timestamp_seconds", "When the processes were looked at.");
  add(text, "audit_timestamp_seconds", unix_seconds(report.census.taken_at));
  begin(text, "audit_exit_code", "2: critical, 1: a warning, 3: not all was seen, 0: clean.");
  add(text, "audit_exit_code", static_cast<std::uint64_t>(report.exit_code));
  return text;
}

void write_prometheus(const std::string& path, const std::string& text) {
  // The collector reads *.prom: it must never meet half a file.
  std::string temporary = path + ".XXXXXX";
  file_descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) fail(path, errno);
  int fault = ::fchmod(file.get(), 0644) == 0 ? write_whole(file.get(), text) : errno;
  if (fault == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) fault = errno;
  if (fault == 0) return;
  ::unlink(temporary.c_str());
  fail(path, fault);
}

}  // namespace tool
