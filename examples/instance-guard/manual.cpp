#include "manual.hpp"

#include <CLI/CLI.hpp>

#include <instance_guard/version.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

option_doc document(const CLI::Option& option) {
  option_doc result;
  for (const std::string& each : option.get_snames()) result.flags.push_back("-" + each);
  for (const std::string& each : option.get_lnames()) result.flags.push_back("--" + each);
  // CLI11 adds what a value is checked against.
  std::string value = option.get_type_name();
  value.erase(std::min(value.find(':'), value.size()));
  if (option.get_items_expected_max() > 0) result.value = value.empty() ? "VALUE" : value;
  result.text = option.get_description();
  result.many = option.get_positional() && option.get_items_expected_max() > 1;
  return result;
}

/// Words of `text` in lines that begin with `indent` blanks, the first one with `head`.
std::string paragraph(const std::string& head, const std::string& text, std::size_t indent) {
  std::string first = head;
  std::string result;
  if (indent > 0 && first.size() + 1 >= indent && !text.empty()) {
    result = first + "\n";
    first.clear();
  }
  first.resize(std::max(first.size(), indent), ' ');
  std::string line = first;
  bool empty = true;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (!empty && line.size() + 1 + word.size() > 79) {
      result += line + "\n";
      line = std::string(indent, ' ');
      empty = true;
    }
    line += (empty ? "" : " ") + word;
    empty = false;
    at = end + 1;
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return result + line + "\n";
}

std::string flags_text(const option_doc& option) {
  std::string text;
  for (const std::string& each : option.flags) text += (text.empty() ? "" : ", ") + each;
  if (option.flags.empty()) return option.value;
  return option.value.empty() ? text : text + " " + option.value;
}

/// Of "a. b" or "a b": for one who can't see what belongs to troff.
std::string roff(std::string_view text) {
  std::string result;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\') result += "\\e";
    else if (c == '-') result += "\\-";
    else result += c;
    line_start = c == '\n';
  }
  return result;
}

std::string roff_options(const command_doc& command) {
  std::string text;
  for (const option_doc& each : command.options) {
    text += ".TP\n";
    std::string flags;
    for (const std::string& flag : each.flags) flags += (flags.empty() ? "\\fB" : ", \\fB") + roff(flag) + "\\fR";
    if (!each.value.empty()) flags += (flags.empty() ? "\\fI" : " \\fI") + roff(each.value) + "\\fR";
    text += flags + "\n" + roff(each.text) + "\n";
  }
  return text;
}

/// Paragraphs, and examples, whose lines begin with two blanks, as they are: not further in, for 80 columns.
std::string roff_block(const std::string& text) {
  std::string result = text.empty() ? "" : ".PP\n";
  bool as_is = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const bool example = line.starts_with("  ");
    if (example != as_is) result += example ? ".nf\n" : ".fi\n";
    as_is = example;
    result += line.empty() ? ".PP\n" : roff(example ? line.substr(2) : line) + "\n";
    at = end + 1;
  }
  return as_is ? result + ".fi\n" : result;
}

std::string version_text() {
  return std::to_string(INSTANCE_GUARD_VERSION_MAJOR) + "." + std::to_string(INSTANCE_GUARD_VERSION_MINOR) + "." +
         std::to_string(INSTANCE_GUARD_VERSION_PATCH);
}

}  // namespace

command_doc document(const CLI::App& app) {
  command_doc result;
  result.name = app.get_name();
  result.text = app.get_description();
  result.footer = app.get_footer();
  result.runs_command = app.get_parent() != nullptr && app.get_name() == "run";
  for (const CLI::Option* each : app.get_options())
    if (!each->get_group().empty()) result.options.push_back(document(*each));
  for (const CLI::App* each : app.get_subcommands([](const CLI::App*) { return true; }))
    if (!each->get_group().empty()) result.commands.push_back(document(*each));
  return result;
}

std::string synopsis(const command_doc& command, const std::string& parent) {
  std::string text = (parent.empty() ? "" : parent + " ") + command.name + " [OPTION]...";
  for (const option_doc& each : command.options)
    if (each.flags.empty()) text += " " + each.value + (each.many ? "..." : "");
  if (!command.commands.empty()) text += " SUBCOMMAND";
  if (command.runs_command) text += " -- COMMAND [ARGUMENT]...";
  return text;
}

std::string help_text(const command_doc& command, const std::string& parent) {
  constexpr std::size_t indent = 26;
  std::string text = "Usage: " + synopsis(command, parent) + "\n\n";
  text += paragraph("", command.text, 0);
  if (!command.commands.empty()) text += "\nSubcommands:\n";
  for (const command_doc& each : command.commands) text += paragraph("  " + each.name, each.text, 12);
  text += "\nOptions:\n";
  for (const option_doc& each : command.options) text += paragraph("  " + flags_text(each), each.text, indent);
  if (!command.footer.empty()) text += "\n" + command.footer + "\n";
  return text;
}

std::string manual_page(const command_doc& root) {
  std::string text = ".TH INSTANCE\\-GUARD 1 \"\" \"instance\\-guard " + version_text() +
                     "\" \"User Commands\"\n.SH NAME\ninstance\\-guard \\- one instance of a "
                     "program, whose children die with it\n.SH SYNOPSIS\n.nf\n";
  for (const command_doc& each : root.commands) text += roff(synopsis(each, root.name)) + "\n";
  text += ".fi\n.SH DESCRIPTION\n" + roff(root.text) + "\n.SH OPTIONS\n" + roff_options(root);
  text += ".SH SUBCOMMANDS\n";
  for (const command_doc& each : root.commands)
    text += ".SS " + roff(synopsis(each, root.name)) + "\n" + roff(each.text) + "\n" + roff_options(each) +
            roff_block(each.footer);
  text +=
      ".SH FILES\n.TP\n.I /run/instance_guard/NAME.lock\n"
      "of root; the first line is the holder's pid\n"
      ".TP\n.I /tmp/instance_guard\\-UID/NAME.lock\nof a user\n"
      ".TP\n.I /run/lock/instance_guard/NAME.lock\nof scope host\n"
      ".TP\n.I NAME.refused\nbeside it: the starts that were refused\n"
      ".SH ENVIRONMENT\n.TP\n.B INSTANCE_GUARD_SESSION\nset by run \\-\\-session, looked for by "
      "reap\n"
      ".TP\n.B INSTANCE_GUARD_KEEP\n1: this process is meant to stay\n"
      ".TP\n.B NO_COLOR\nno colours\n"
      ".SH SEE ALSO\n.BR flock (1),\n.BR systemd.service (5)\n";
  return text;
}

void use_manual(CLI::App& root) {
  root.formatter_fn([](const CLI::App* app, std::string, CLI::AppFormatMode) {
    const CLI::App* parent = app->get_parent();
    return help_text(document(*app), parent == nullptr ? std::string() : parent->get_name());
  });
}

void add_manual(CLI::App& root, invocation& call) {
  CLI::App* page = root.add_subcommand("man", "Print the manual page.")->group("");
  refuse_command(*page, call);
  page->callback([&root] { print(manual_page(document(root))); });
  CLI::App* sub = root.add_subcommand("completion", "Print completions for a shell.")->group("");
  auto shell = std::make_shared<std::string>();
  sub->add_option("shell", *shell)->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  refuse_command(*sub, call);
  sub->callback([&root, shell] { print(completion(document(root), *shell)); });
}

}  // namespace tool
