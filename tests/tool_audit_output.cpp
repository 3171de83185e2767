// How audit tells a census: whatever is in it, lines fit, terminals stay sane, formats stay valid.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <instance_guard/detail/census_text.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "../examples/instance-guard/audit_report.hpp"
#include "../examples/instance-guard/audit_words.hpp"
#include "../examples/instance-guard/text.hpp"
#include "support/temporary_directory.hpp"
#include "support/tool_result.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;
using support::fits;
using support::lines_of;
using tool::audit_report;

namespace {

census_entry entry(pid_t pid, std::vector<std::string> arguments, bool keep = false) {
  census_entry result;
  result.process.id.pid = pid;
  result.process.started_at = std::chrono::system_clock::now() - 7 * 24h;
  result.process.resident_bytes = 142u << 20;
  result.process.cpu_time = 5'000s;
  result.name = arguments.empty() ? "bot" : arguments.front().substr(0, 15);
  result.arguments = std::move(arguments);
  result.working_directory = "/srv/shiva";
  result.keep = keep;
  return result;
}

ghost finding(ghost_kind kind, severity level, std::vector<census_entry> processes) {
  ghost result;
  result.kind = kind;
  result.level = level;
  result.program = "shiva/main.py";
  result.headline = "shiva/main.py runs 2 times";
  result.why =
      "same script, same user, one managed and one by hand; neither holds a guard, so nothing "
      "stops both from trading";
  result.remedy = "instance-guard reap 88120";
  result.proof = {{"script", "/srv/shiva/main.py"}, {"script", "/srv/other/main.py"}};
  result.processes = std::move(processes);
  return result;
}

audit_report report_of(std::vector<ghost> ghosts) {
  audit_report report;
  report.host = "tesseract";
  report.user = "knox";
  report.census.taken_at = std::chrono::system_clock::now();
  report.census.processes = 643;
  report.census.ghosts = std::move(ghosts);
  report.exit_code = tool::exit_code_of(report.census);
  return report;
}

audit_report incident() {
  std::vector<census_entry> pytest;
  for (pid_t pid = 60'001; pid <= 60'019; ++pid) pytest.push_back(entry(pid, {"python3", "-m", "pytest"}));
  ghost orphans = finding(ghost_kind::orphan, severity::warning, pytest);
  orphans.program = "pytest";
  orphans.headline = "19 x pytest, 2.6 GB, 6 dead agent sessions";
  ghost duplicate = finding(
      ghost_kind::duplicate, severity::critical,
      {entry(51'877, {"python3", "shiva/main.py"}, true), entry(88'120, {"python", "shiva/main.py", "--debug"})});
  duplicate.processes[1].difference = "+--debug";
  duplicate.processes[0].proof = {{"commit_now", std::string(40, '9')}};
  duplicate.processes[1].proof = {{"commit_at_start", std::string(40, '4')}, {"commit_now", std::string(40, '9')}};
  return report_of({duplicate, orphans});
}

const std::string hostile[] = {"\x1b[2J\x1b]0;owned\x07",
                               "a\nb\r\tc",
                               "\xff\xfe\xc0\x80",
                               "``` @everyone `x`",
                               "\xe2\x80\xae"
                               "evil",
                               "|x=1",
                               "\"},\"x\":\"",
                               std::string(3'000, 'w'),
                               "$(reboot)",
                               ""};

audit_report hostile_report() {
  std::vector<ghost> ghosts;
  for (const std::string& text : hostile)
    for (const ghost_kind kind : {ghost_kind::duplicate, ghost_kind::stale, ghost_kind::orphan, ghost_kind::zombie}) {
      std::vector<census_entry> processes;
      for (pid_t pid = 1; pid < 8; ++pid) processes.push_back(entry(pid, {text, text}, pid == 1));
      for (census_entry& each : processes) {
        each.name = text;
        each.executable = text;
        each.working_directory = text;
        each.difference = text;
        each.managed_by.name = text;
        each.managed_by.kind = manager_kind::tmux;
        each.managed_by.session = text;
        each.proof = {{text, text}};
      }
      ghost one = finding(kind, severity::warning, std::move(processes));
      one.program = one.headline = one.why = one.remedy = text;
      one.proof = {{text, text}, {"key", text}};
      ghosts.push_back(std::move(one));
    }
  audit_report report = report_of(std::move(ghosts));
  for (const std::string& text : hostile) {
    note one;
    one.text = text;
    one.processes = {entry(7, {text})};
    report.census.notes.push_back(one);
    report.census.blind_spots.push_back({text, text, 3});
    report.census.services.push_back({text, 1, 0, {}});
  }
  report.host = "host\x1b[31m`*";
  return report;
}

/// Nothing but text and newlines.
bool harmless(const std::string& text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\n') || byte == 0x7f;
  });
}

}  // namespace

TEST_CASE("the incident, in 80 columns: who to keep, who to end, why, and what to type") {
  const audit_report report = incident();
  const std::string text = tool::audit_text(report, 80);
  CAPTURE(text);
  CHECK(fits(text));
  for (const std::string part :
       {"tesseract, ", "20 ghosts among 643 processes (user knox)", "CRITICAL duplicate  shiva/main.py runs 2 times",
        "keep  51877", "end   88120", "7d", "142 MB", "args: +--debug", "HEAD 9999999", "HEAD was 4444444",
        "do    instance-guard reap 88120", "WARNING  orphan     19 x pytest",
        "... 16 more: instance-guard audit --kind orphan --verbose", "1 critical, 1 warning.   exit 2"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, part);
  CHECK(text.find("60010") == std::string::npos);
}

TEST_CASE("verbose: every process, with its command and the facts") {
  audit_report report = incident();
  report.verbose = true;
  const std::string text = tool::audit_text(report, 80);
  CHECK(fits(text));
  CHECK(text.find("60010") != std::string::npos);
  CHECK(text.find("python shiva/main.py --debug") != std::string::npos);
  CHECK(text.find("script=/srv/shiva/main.py") != std::string::npos);
}

TEST_CASE("the incident, in 120 columns: one table") {
  const std::string text = tool::audit_text(incident(), 120);
  CAPTURE(text);
  CHECK(fits(text, 120));
  CHECK(text.find("SEVERITY  KIND       PID") != std::string::npos);
  CHECK(text.find("MANAGED BY") != std::string::npos);
  CHECK(text.find("keep  python3 shiva/main.py") != std::string::npos);
  CHECK(text.find("code 51877 HEAD 9999999, 88120 HEAD was 4444444\n") != std::string::npos);
  CHECK(text.find("19x") != std::string::npos);
}

TEST_CASE("a clean host is said to be clean") {
  const audit_report report = report_of({});
  const std::string text = tool::audit_text(report, 80);
  CHECK(text.find("no ghosts among 643 processes") != std::string::npos);
  CHECK(text.find("clean.   exit 0") != std::string::npos);
  audit_report partial = report_of({});
  partial.census.complete = false;
  partial.exit_code = 3;
  CHECK(tool::audit_text(partial, 80).ends_with("nothing found, but not all could be seen.   exit 3\n"));
  CHECK(tool::audit_text(partial, 80).find("clean") == std::string::npos);
}

TEST_CASE("others that were not seen are told, with what shows them") {
  audit_report report = report_of({});
  report.census.blind_spots = {{"other_users", "431 processes of other users", 431}};
  CHECK(tool::audit_text(report, 80).find("not seen: 431 processes of other users (use sudo or --all-users)") !=
        std::string::npos);
  report.all_users = true;
  CHECK(tool::audit_text(report, 80).find("use sudo") == std::string::npos);
}

TEST_CASE("whatever processes call themselves, a terminal draws it and lines fit") {
  audit_report report = hostile_report();
  for (const bool verbose : {false, true}) {
    report.verbose = verbose;
    for (const std::size_t columns : {80U, 120U}) {
      const std::string text = tool::audit_text(report, columns);
      CHECK(harmless(text));
      for (const std::string& line : lines_of(text)) CHECK_MESSAGE(fits(line, columns), line);
      CHECK(text.find("\xe2\x80\xae") == std::string::npos);
    }
  }
}

TEST_CASE("JSON is valid, and says what it promises") {
  const auto document = nlohmann::json::parse(tool::audit_json(incident()));
  CHECK(document["schema"] == 1);
  CHECK(document["host"] == "tesseract");
  CHECK(document["processes"] == 643);
  CHECK(document["exit_code"] == 2);
  REQUIRE(document["ghosts"].size() == 2);
  const auto& duplicate = document["ghosts"][0];
  CHECK(duplicate["kind"] == "duplicate");
  CHECK(duplicate["severity"] == "critical");
  CHECK(duplicate["remedy"] == "instance-guard reap 88120");
  CHECK(duplicate["evidence"]["script"].size() == 2);
  CHECK(duplicate["processes"][0]["keep"] == true);
  CHECK(duplicate["processes"][0]["managed_by"].is_string());
  CHECK(duplicate["processes"][1]["arguments"][2] == "--debug");
  CHECK(duplicate["processes"][1]["started_at"].get<std::string>().back() == 'Z');
  CHECK(document["ghosts"][1]["processes"].size() == 19);
}

TEST_CASE("JSON stays valid whatever is in it") {
  const std::string text = tool::audit_json(hostile_report());
  const auto document = nlohmann::json::parse(text);
  CHECK(document["ghosts"].size() == std::size(hostile) * 4);
  CHECK(harmless(text));
}

TEST_CASE("Prometheus: each sample has its type, no label is a pid") {
  for (const audit_report& report : {incident(), hostile_report()}) {
    const std::string text = tool::audit_prometheus(report);
    const std::regex sample(R"rx(instance_guard_([a-z_]+)(\{([a-z]+="([^"\\]|\\.)*",?)+\})? [0-9]+)rx");
    std::vector<std::string> types;
    for (const std::string& line : lines_of(text)) {
      if (line.rfind("# TYPE instance_guard_", 0) == 0) types.push_back(line.substr(22, line.find(' ', 22) - 22));
      if (line[0] == '#') continue;
      // std::regex recurses over a long label.
      if (line.size() > 1'000) continue;
      std::smatch parts;
      CHECK_MESSAGE(std::regex_match(line, parts, sample), line);
      CHECK(std::count(types.begin(), types.end(), parts[1].str()) == 1);
    }
    CHECK(text.find("pid") == std::string::npos);
    CHECK(harmless(text));
  }
  const std::string text = tool::audit_prometheus(incident());
  CHECK(text.find("instance_guard_ghost_processes{kind=\"duplicate\",severity=\"critical\"} 1\n") != std::string::npos);
  CHECK(text.find("instance_guard_ghost_processes{kind=\"orphan\",severity=\"warning\"} 19\n") != std::string::npos);
  CHECK(text.find("instance_guard_ghost_processes{kind=\"zombie\",severity=\"warning\"} 0\n") != std::string::npos);
  CHECK(text.find("instance_guard_audit_exit_code 2\n") != std::string::npos);
}

TEST_CASE("the file of Prometheus is replaced at once, readable by all, and nothing else is left") {
  const support::temporary_directory directory;
  const std::string path = directory / "ghosts.prom";
  const mode_t before = ::umask(0077);
  for (const std::string text : {"old\n", "new\n"}) tool::write_prometheus(path, text);
  ::umask(before);
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  CHECK(content.str() == "new\n");
  struct stat facts = {};
  REQUIRE(::stat(path.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 07777) == 0644);
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
  CHECK_THROWS_AS(tool::write_prometheus(directory / "none/x.prom", "x"), std::system_error);
  // A directory in its place: an error, and no temporary file stays.
  std::filesystem::create_directory(directory / "d.prom");
  CHECK_THROWS_AS(tool::write_prometheus(directory / "d.prom", "x"), std::system_error);
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 2);
}

TEST_CASE("Discord: at most 2,000 characters, nobody is mentioned, no text leaves its block") {
  for (const audit_report& report : {incident(), hostile_report(), report_of({})}) {
    const std::vector<std::string> payloads = tool::audit_discord(report);
    REQUIRE(!payloads.empty());
    std::size_t told = 0;
    for (const std::string& each : payloads) {
      CHECK(each.find('\n') == std::string::npos);
      const auto message = nlohmann::json::parse(each);
      CHECK(message["allowed_mentions"]["parse"].empty());
      CHECK(message["allowed_mentions"]["parse"].is_array());
      const std::string content = message["content"];
      CHECK(content.size() <= 2'000);
      CHECK(!content.empty());
      std::size_t fences = 0;
      for (std::size_t at = 0; (at = content.find("```", at)) != std::string::npos; at += 3) ++fences;
      CHECK((fences == 0 || fences == 2));
      // Within the block there is no backtick but the fences'.
      const auto ticks = static_cast<std::size_t>(std::count(content.begin(), content.end(), '`'));
      CHECK(ticks - fences * 3 == static_cast<std::size_t>(content.find("\\`") != std::string::npos));
      for (const std::string& line : lines_of(content))
        if (line.rfind("CRIT ", 0) == 0 || line.rfind("WARN ", 0) == 0) ++told;
    }
    CHECK(told >= report.census.ghosts.size());
  }
  const std::string text = nlohmann::json::parse(tool::audit_discord(incident())[0])["content"];
  CHECK(text.find("**tesseract: 1 critical, 1 warning**") == 0);
  CHECK(text.find("keep 51877") != std::string::npos);
  CHECK(nlohmann::json::parse(tool::audit_discord(report_of({}))[0])["content"].get<std::string>().find(
            "**tesseract: clean** 643 processes, 0 guards held, no ghost on record") == 0);
  audit_report later = report_of({});
  later.last_ghost = later.census.taken_at - std::chrono::hours(21 * 24);
  CHECK(nlohmann::json::parse(tool::audit_discord(later)[0])["content"].get<std::string>().find(
            "0 guards held, last ghost 21d ago") != std::string::npos);
}

TEST_CASE("Nagios: one line, one bar, performance data") {
  const std::string text = tool::audit_nagios(incident());
  CHECK(text ==
        "GHOSTS CRITICAL - 1 duplicate, 19 orphan (shiva/main.py, pytest) | zombie=0 orphan=19 "
        "duplicate=1 stale=0 unseen=0\n");
  const std::string odd = tool::audit_nagios(hostile_report());
  CHECK(std::count(odd.begin(), odd.end(), '|') == 1);
  CHECK(std::count(odd.begin(), odd.end(), '\n') == 1);
  CHECK(harmless(odd));
  CHECK(tool::audit_nagios(report_of({})).rfind("GHOSTS OK - none among 643 processes |", 0) == 0);
}

TEST_CASE("the exit code is that of the worst, and a partial view is none of them") {
  census clean;
  CHECK(tool::exit_code_of(clean) == 0);
  clean.complete = false;
  CHECK(tool::exit_code_of(clean) == 3);
  census warned = clean;
  warned.ghosts = {finding(ghost_kind::orphan, severity::warning, {})};
  CHECK(tool::exit_code_of(warned) == 1);
  census critical = warned;
  critical.ghosts.push_back(finding(ghost_kind::duplicate, severity::critical, {}));
  CHECK(tool::exit_code_of(critical) == 2);
  census missing;
  note service;
  service.kind = note_kind::service_missing;
  service.level = severity::warning;
  missing.notes = {service};
  CHECK(tool::exit_code_of(missing) == 1);
}

TEST_CASE("memory is told alike in a headline and in a row") {
  using instance_guard::detail::memory_text;
  CHECK(memory_text(0) == "0 B");
  CHECK(memory_text(std::uint64_t{3} << 19) == "2 MB");
  CHECK(memory_text(std::uint64_t{8} << 30) == "8.0 GB");
  CHECK(memory_text((std::uint64_t{10} << 30) - 1) == "10 GB");
  for (std::uint64_t bytes = 1; bytes < std::uint64_t{1} << 50; bytes += bytes / 7 + 1)
    REQUIRE(tool::memory(bytes) == memory_text(bytes));
}

TEST_CASE("a command with bytes that a terminal would obey can be pasted all the same") {
  CHECK(tool::command_line({"a b", "it's", "back\\slash"}) == "'a b' 'it'\\''s' 'back\\slash'");
  CHECK(tool::command_line({"\x1b's \\"}) == "$'\\x1b\\'s \\\\'");
}
