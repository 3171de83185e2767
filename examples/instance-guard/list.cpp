// instance-guard list: every name that is not free, as a table of 80 columns.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "exit_codes.hpp"
#include "lock_view.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

using instance_guard::lock_record;
using instance_guard::lock_scope;
using instance_guard::lock_state;
using instance_guard::lock_status;

struct list_arguments {
  look_options look = {};
  bool as_json = false;
};

/// NAME, STATE, PID, AGE, STARTED BY, VERSION
using table_row = std::array<std::string, 6>;

/// A process that holds several names is told once: of the others the first one is named.
std::string first_name_of(const lock_view& view) {
  return view.also.empty() || view.also.front() > view.status.name ? std::string() : view.also.front();
}

std::string came_from(const lock_view& view) {
  const lock_status& status = view.status;
  const std::string pid = status.holder ? "pid " + std::to_string(status.holder->process.pid) : std::string("holder");
  const std::string when = view.ended_at ? " " + age_since(*view.ended_at, "") + " ago" : "";
  if (status.state == lock_state::cleaning_up) {
    const std::string left = counted(view.children.size(), "child left", "children left");
    return left + (view.ended_at ? ", " + age_since(*view.ended_at, "") : "");
  }
  if (status.state == lock_state::abandoned) return pid + " died" + when;
  if (!status.holder) return "unknown";
  const std::string first = first_name_of(view);
  if (!first.empty()) return "(" + first + ")";
  return status.holder->started_from.empty() ? "unknown" : shown(status.holder->started_from);
}

table_row row_of(const lock_view& view) {
  const lock_status& status = view.status;
  const std::string name = status.name + (status.scope == lock_scope::host ? " (host)" : "");
  if (!status.explanation.empty()) return {name, "unknown", "-", "-", fault_of(status.explanation, {}).fact, "-"};
  const bool held = status.state == lock_state::held;
  const auto since = held_since(status);
  std::string version = status.holder ? shown(status.holder->version) : std::string();
  if (version.empty() || !held) version = "-";
  constexpr std::size_t room = 9;
  version = status.replaced_code ? cut(version, room - 2) + " !" : cut(version, room);
  return {name,
          state_text(status.state),
          held && status.holder ? std::to_string(status.holder->process.pid) : "-",
          held && since ? age_since(*since, "") : "-",
          came_from(view),
          version};
}

std::string line_of(const table_row& cells, const std::array<std::size_t, 6>& widths) {
  std::string line;
  // A name can be pasted: never cut; one that leaves no room has a line of its own.
  if (width(cells[0]) > widths[0]) {
    line = cells[0] + "\n" + std::string(widths[0], ' ');
  } else {
    line = cell(cells[0], widths[0]);
  }
  for (std::size_t i = 1; i < cells.size(); ++i) line += "  " + cell(cells[i], widths[i]);
  while (line.back() == ' ') line.pop_back();
  return line + "\n";
}

std::string table(const std::vector<lock_view>& views) {
  const table_row head = {"NAME", "STATE", "PID", "AGE", "STARTED BY", "VERSION"};
  std::vector<table_row> rows = {head};
  for (const lock_view& each : views) rows.push_back(row_of(each));
  constexpr std::array<std::size_t, 6> most = {24, 11, 7, 7, 200, 9};
  std::array<std::size_t, 6> widths = {};
  std::size_t total = 0;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    for (const table_row& each : rows)
      if (i != 0 || width(each[i]) <= most[0]) widths[i] = std::max(widths[i], width(each[i]));
    widths[i] = std::min(widths[i], most[i]);
    total += widths[i] + (i == 0 ? 0 : 2);
  }
  // What is too much is taken from the names (longer ones get a line of their own), then from where
  // it came from, which can be read in status as well.
  constexpr std::size_t least_name = 18;
  if (total > columns() && widths[0] > least_name) {
    const std::size_t less = std::min(widths[0] - least_name, total - columns());
    widths[0] -= less;
    total -= less;
  }
  if (total > columns()) widths[4] -= std::min(widths[4] - head[4].size(), total - columns());
  std::string text;
  for (const table_row& each : rows) text += line_of(each, widths);
  if (std::any_of(views.begin(), views.end(), [](const lock_view& each) { return each.status.replaced_code; }))
    text += "! runs code that has been replaced\n";
  return text;
}

/// Held ones first, a process's further names behind its first; then what needs attention.
bool comes_before(const lock_view& a, const lock_view& b) {
  if (a.status.state != b.status.state) return a.status.state < b.status.state;
  const std::string first_a = first_name_of(a);
  const std::string first_b = first_name_of(b);
  const std::string& key_a = first_a.empty() ? a.status.name : first_a;
  const std::string& key_b = first_b.empty() ? b.status.name : first_b;
  if (key_a != key_b) return key_a < key_b;
  return first_a.empty() != first_b.empty() ? first_a.empty() : a.status.name < b.status.name;
}

int run_list(const list_arguments& arguments) {
  std::vector<lock_view> views;
  for (const lock_scope scope : {lock_scope::user, lock_scope::host}) {
    if (!arguments.look.wants(scope)) continue;
    std::error_code ec;
    const std::vector<lock_status> all = list_locks(arguments.look.in(scope), ec);
    if (ec) throw std::system_error(ec, std::string("names of scope ") + scope_text(scope));
    for (const lock_status& each : all) views.push_back(view_of(each, all));
  }
  std::sort(views.begin(), views.end(), comes_before);
  if (arguments.as_json) {
    json document;
    document["schema"] = json_schema;
    document["names"] = json::array();
    for (const lock_view& each : views) document["names"].push_back(to_json(each));
    print(dumped(document));
  } else {
    print(views.empty() ? std::string("no name is held\n") : table(views));
  }
  return 0;
}

}  // namespace

void add_list(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<list_arguments>();
  CLI::App* sub = root.add_subcommand("list", "List every name that is not free.");
  add_look_options(*sub, arguments->look);
  sub->add_flag("--json", arguments->as_json, "For machines");
  sub->footer(
      "Examples:\n"
      "  instance-guard list\n"
      "  instance-guard list --json | jq '.names[] | select(.replaced_code).name'");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] { call.exit_code = run_list(*arguments); });
}

}  // namespace tool
