// instance-guard doctor: which promises this host can keep, each tried for real.
#include "doctor.hpp"

#include <CLI/CLI.hpp>

#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "doctor_actors.hpp"
#include "doctor_anchors.hpp"
#include "json.hpp"
#include "look_options.hpp"
#include "subcommands.hpp"
#include "text.hpp"

namespace tool {
namespace {

struct doctor_arguments {
  bool as_json = false;
  std::vector<std::string> play = {};
};

struct section {
  std::string title = {};
  std::vector<finding> findings = {};
};

const char* text_of(verdict result) {
  switch (result) {
    case verdict::ok: return "ok";
    case verdict::no: return "NO";
    case verdict::note: return "note";
    case verdict::part: return "part";
  }
  return "?";
}

const char* json_of(verdict result) { return result == verdict::no ? "no" : text_of(result); }

std::vector<section> examine() {
  std::vector<section> all;
  all.push_back({"One holder per name", check_names()});
  all.push_back({"Children end with their owner", check_children()});
  std::vector<finding> more = check_kernel();
  std::move(more.begin(), more.end(), std::back_inserter(all.back().findings));
  all.push_back({"Seeing others", check_sight()});
  return all;
}

std::string in_words(const std::vector<section>& all, const std::vector<std::string>& missing) {
  std::string text;
  for (const section& part : all) {
    text += part.title + "\n";
    for (const finding& each : part.findings) {
      constexpr std::size_t indent = 17;
      const std::string head = cell(text_of(each.result), 6) + cell(each.name, 8);
      text += row(head, each.text, indent);
    }
  }
  if (missing.empty()) return text + "All promises kept.   exit 0\n";
  const auto told = [](const std::string& name) { return name + " (see " + where_told(name) + ")"; };
  if (const std::string line = "All promises kept but: " + told(missing.front()) + ".   exit 1";
      missing.size() == 1 && width(line) <= 80)
    return text + line + "\n";
  text += "All promises kept but:\n";
  for (const std::string& each : missing) text += "  " + told(each) + "\n";
  return text + counted(missing.size(), "promise", "promises") + " not kept.   exit 1\n";
}

int run_doctor(const doctor_arguments& arguments) {
  const std::vector<section> all = examine();
  std::vector<std::string> missing;
  for (const section& part : all)
    for (const finding& each : part.findings)
      if (each.result == verdict::no) missing.push_back(each.name);
  if (arguments.as_json) {
    json document;
    document["schema"] = json_schema;
    document["kept"] = missing.empty();
    document["not_kept"] = missing;
    document["checks"] = json::array();
    for (const section& part : all)
      for (const finding& each : part.findings)
        document["checks"].push_back(
            {{"promise", part.title}, {"name", each.name}, {"result", json_of(each.result)}, {"text", each.text}});
    print(dumped(document));
  } else {
    print(in_words(all, missing));
  }
  return missing.empty() ? 0 : 1;
}

}  // namespace

void add_doctor(CLI::App& root, invocation& call) {
  auto arguments = std::make_shared<doctor_arguments>();
  CLI::App* sub = root.add_subcommand("doctor", "Try which promises this host can keep.");
  sub->add_flag("--json", arguments->as_json, "For machines");
  sub->add_option("--play", arguments->play)->group("");  // see doctor_actors.hpp
  sub->footer(
      "Each promise is tried for real: locks, a warden that adopts, an owner and a\n"
      "warden that are killed. ok: kept; NO: not kept, or not to be tried here;\n"
      "part: for some; note: no promise, but one should know.\n\n"
      "Exit code: 0 only when all are kept, else 1.\n\n"
      "Examples:\n"
      "  instance-guard doctor\n"
      "  instance-guard doctor --json | jq -r '.not_kept[]'");
  refuse_command(*sub, call);
  sub->callback([arguments, &call] {
    call.exit_code = arguments->play.empty() ? run_doctor(*arguments) : play(arguments->play);
  });
}

}  // namespace tool
