// The tool's words: help, manual, completions; and what is wrong with the arguments.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/terminal.hpp"
#include "support/tool_result.hpp"
#include "support/unique_name.hpp"

using namespace support;

namespace {

const std::vector<std::string> subcommands = {"run", "status", "list", "stop", "audit", "reap", "doctor"};

bool installed(const std::string& program) {
  for (const char* place : {"/bin/", "/usr/bin/", "/usr/local/bin/"})
    if (::access((place + program).c_str(), X_OK) == 0) return true;
  return false;
}

/// Writes what the tool says into a file of the scene.
std::string saved(const scene& s, const std::vector<std::string>& arguments, const std::string& name) {
  const tool_result got = run_tool(s, arguments);
  CHECK(got.code == 0);
  CHECK(got.out.size() > 500);
  std::ofstream(s / name) << got.out;
  return s / name;
}

int code_of(const scene& s, std::vector<std::string> words) {
  program one = s.start(std::move(words), {.merge_err = true});
  one.in().reset();
  const std::string said = one.read_all();
  CAPTURE(said);
  return one.wait().value_or(no_status).code();
}

}  // namespace

TEST_CASE("--help of each subcommand: its options, examples, within 80 columns") {
  const scene s;
  const tool_result root = run_tool(s, {"--help"});
  CHECK(root.code == 0);
  CHECK(fits(root.out));
  for (const std::string& each : subcommands) {
    CAPTURE(each);
    CHECK(root.says("\n  " + each + " "));
    const tool_result got = run_tool(s, {each, "--help"});
    CHECK(got.code == 0);
    CAPTURE(got.out);
    CHECK(fits(got.out));
    CHECK(got.says("Usage: instance-guard " + each + " [OPTION]..."));
    CHECK(got.says("\nExamples:\n  instance-guard "));
    CHECK(got.says("\n  instance-guard " + each));
    CHECK(got.says("--help"));
  }
  CHECK(run_tool(s, {"--version"}).says("instance-guard 0."));
}

TEST_CASE("wrong arguments: one line that says which, exit 125") {
  const scene s;
  const std::vector<std::vector<std::string>> wrong = {{},
                                                       {"nonsense"},
                                                       {"--nonsense"},
                                                       {"status"},
                                                       {"status", "--nonsense", "x"},
                                                       {"status", "a/b"},
                                                       {"status", std::string(65, 'x')},
                                                       {"status", "x", "--scope", "world"},
                                                       {"status", "--", "x"},
                                                       {"list", "x"},
                                                       {"list", "--json=maybe"},
                                                       {"list", "--", "true"},
                                                       {"stop"},
                                                       {"stop", "a", "b"},
                                                       {"stop", "..", "--force"},
                                                       {"stop", "a", "--grace", "5"},
                                                       {"stop", "a", "--grace", "5x"},
                                                       {"stop", "a", "--grace", "1m1h"},
                                                       {"stop", "a", "--grace", "-5s"},
                                                       {"stop", "a", "--grace", ""},
                                                       {"reap"},
                                                       {"reap", "--session"},
                                                       {"reap", "--session", ""},
                                                       {"reap", "--session", "x", "--grace", "soon"},
                                                       {"reap", "0"},
                                                       {"reap", "--orphans", "4711", "--dry-run"},
                                                       {"doctor", "x"},
                                                       {"doctor", "--", "true"},
                                                       {"completion", "tcsh"},
                                                       {"audit", "--ignore", ""},
                                                       {"audit", "--prometheus", ""},
                                                       {"audit", "--discord", "--webhook-file", ""},
                                                       {"audit", "--service", "a=x", "--service", "a=y"},
                                                       {"run", "--session", "", "--", "true"},
                                                       {"run", "--name", "", "--", "true"},
                                                       {"run", "--name", "a", "--name", "\x1b[2J\n", "--", "true"},
                                                       {"run", "--stop-signal", "RTMAX+1", "--", "true"}};
  for (const auto& arguments : wrong) {
    std::string shown;
    for (const std::string& each : arguments) shown += each + " ";
    CAPTURE(shown);
    const tool_result got = run_tool(s, arguments, {.merge_err = true});
    CAPTURE(got.out);
    CHECK(got.code == 125);
    CHECK(lines_of(got.out).size() == 1);
    CHECK(got.out.starts_with("instance-guard"));
    CHECK(got.out.size() < 300);
  }
}

TEST_CASE("the word that is wrong is the one that is told") {
  const scene s;
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"nonsense"}, "instance-guard: 'nonsense' is no subcommand (see instance-guard --help)\n"},
      {{"--nonsense"}, "instance-guard: '--nonsense' is no option (see instance-guard --help)\n"},
      {{"status", "-x"}, "instance-guard status: '-x' is no option (see instance-guard status --help)\n"},
      {{"reap", "--session"}, "instance-guard reap: --session: a value is missing (see instance-guard reap --help)\n"},
      {{"stop", "a", "--grace", "1s", "--grace", "2s"},
       "instance-guard stop: --grace: given more than once (see instance-guard stop --help)\n"},
      {{"run", "--"},
       "instance-guard run: a command is missing: run [OPTION]... -- COMMAND (see instance-guard run --help)\n"},
      {{"run", "--name", "a/\x1b[2J", "--", "true"},
       "instance-guard run: --name 'a/\\x1b[2J': a name is 1 to 64 of A-Z a-z 0-9 . _ @ : + - and neither . nor ..\n"}};
  for (const auto& each : cases) CHECK(run_tool(s, each.first, {.merge_err = true}).out == each.second);
}

TEST_CASE("help that can't be written is a fault") {
  const scene s;
  const auto full = [] { return ::dup2(::open("/dev/full", O_WRONLY | O_CLOEXEC), STDOUT_FILENO) >= 0; };
  const auto closed = [] { return ::close(STDOUT_FILENO) == 0; };
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--help"}, {"--version"}, {"run", "--help"}, {"man"}}) {
    CAPTURE(words.front());
    CHECK(run_tool(s, words, {.before_exec = full}).code == 125);
    CHECK(run_tool(s, words, {.before_exec = closed}).code == 125);
    CHECK(run_tool(s, words).code == 0);
  }
}

TEST_CASE("what needs a census is done by the program beside the tool, or in ../libexec/instance-guard") {
  namespace fs = std::filesystem;
  const scene s;
  const fs::path built = fs::path(INSTANCE_GUARD_TOOL).parent_path();
  const fs::path prefix = s / "prefix";
  const fs::path helpers = prefix / "libexec" / "instance-guard";
  fs::create_directories(prefix / "bin");
  fs::create_directories(helpers);
  const std::string tool = prefix / "bin" / "instance-guard";
  fs::copy_file(INSTANCE_GUARD_TOOL, tool);
  const auto ask = [&](std::vector<std::string> words) {
    words.insert(words.begin(), tool);
    program one = s.start(std::move(words), {.merge_err = true});
    one.in().reset();
    tool_result got;
    got.out = one.read_all();
    got.code = one.wait().value_or(no_status).code();
    return got;
  };
  const std::vector<std::vector<std::string>> questions = {{"audit", "--kind", "stale", "--ignore", "."},
                                                           {"reap", "--dry-run", "--orphans", "--ignore", "."}};
  for (const auto& words : questions) {
    const tool_result missing = ask(words);
    CHECK(missing.code == 125);
    CHECK(lines_of(missing.out).size() == 1);
    CHECK(missing.says("instance-guard " + words.front() + ": instance-guard-census is missing"));
  }
  const tool_result monitor = ask({"audit", "--nagios"});
  CHECK(monitor.code == 3);
  CHECK(monitor.out.starts_with("GHOSTS UNKNOWN - instance-guard-census is missing"));
  // All else needs nothing but itself, and wrong words are told before.
  CHECK(ask({"run", "--", "true"}).code == 0);
  CHECK(ask({"audit", "--help"}).code == 0);
  CHECK(ask({"audit", "--nonsense"}).says("--nonsense"));
  fs::copy_file(built / "instance-guard-census", helpers / "instance-guard-census");
  for (const auto& words : questions) {
    const tool_result found = ask(words);
    CAPTURE(found.out);
    CHECK(found.code != 125);
    CHECK_FALSE(found.says("missing"));
  }
}

TEST_CASE("a wrong argument is told without what a terminal would obey") {
  const scene s;
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"status", "\x1b[2Jx"}, {"stop", "x\ny"}, {"stop", "a", "--grace", "\x1b[2J"}}) {
    const tool_result got = run_tool(s, arguments, {.merge_err = true});
    CHECK(got.code == 125);
    CHECK(lines_of(got.out).size() == 1);
    CHECK(got.out.find('\x1b') == std::string::npos);
  }
}

TEST_CASE("the manual page has each subcommand with its options, and troff takes it") {
  const scene s;
  const std::string file = saved(s, {"man"}, "instance-guard.1");
  std::ifstream in(file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  for (const std::string& each : subcommands)
    CHECK(text.find(".SS instance\\-guard " + each + " ") != std::string::npos);
  for (const char* each : {"\\-\\-dry\\-run", "\\-\\-force", "\\-\\-json", "\\-\\-session", ".SH FILES"})
    CHECK(text.find(each) != std::string::npos);
  CHECK(text.find("\\-\\-play") == std::string::npos);
  if (!installed("mandoc")) {
    MESSAGE("skipped: no mandoc");
    return;
  }
  CHECK(code_of(s, {"mandoc", "-T", "lint", "-W", "error", file}) == 0);
  program reader = s.start({"mandoc", "-T", "ascii", file});
  const std::string page = reader.read_all();  // bold is a letter, a backspace, the letter
  CHECK(page.find("N\bNA\bAM\bME\bE") != std::string::npos);
  for (const std::string& line : lines_of(page)) {
    std::size_t columns = line.size();
    for (const char c : line) columns -= c == '\b' ? 2U : 0U;
    CHECK_MESSAGE(columns <= 80, line);
  }
}

TEST_CASE("the completions are programs that their shells take") {
  const scene s;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    CAPTURE(shell);
    const std::string file = saved(s, {"completion", shell}, shell);
    if (!installed(shell)) {
      MESSAGE("skipped: no " << shell);
      continue;
    }
    CHECK(code_of(s, {shell, "-n", file}) == 0);
  }
}

TEST_CASE("bash completes subcommands, options, values, and the names that are held") {
  if (!installed("bash")) return;
  const scene s;
  const std::string file = saved(s, {"completion", "bash"}, "completion.bash");
  // instance-guard in PATH, as a user has it; a holder to complete.
  const std::string name = unique_name("complete");
  program holder = s.start({INSTANCE_GUARD_LOCK_HELPER, name});
  REQUIRE(holder.read_until("taken"));
  const auto complete = [&](const std::string& line) {
    program shell = s.start({"bash", "--norc", "-c",
                             "PATH=\"${1%/*}:$PATH\"; . \"$2\"; read -ra COMP_WORDS <<< \"$3\";"
                             " [[ $3 == *' ' ]] && COMP_WORDS+=('');"
                             " COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _instance_guard; echo \"${COMPREPLY[*]}\"",
                             "bash", INSTANCE_GUARD_TOOL, file, line});
    return " " + shell.read_line().value_or("nothing") + " ";
  };
  for (const std::string& each : subcommands)
    CHECK(complete("instance-guard ").find(" " + each + " ") != std::string::npos);
  CHECK(complete("instance-guard sto") == " stop ");
  CHECK(complete("instance-guard stop --for") == " --force ");
  CHECK(complete("instance-guard status --scope h") == " host ");
  CHECK(complete("instance-guard status " + name.substr(0, 14)).find(" " + name + " ") != std::string::npos);
  CHECK(complete("instance-guard run -- tru").find(" true ") != std::string::npos);
  holder.in().reset();
  CHECK(holder.wait());
}

TEST_CASE("fish completes subcommands, options, values, the names that are held, and the command") {
  if (!installed("fish")) {
    MESSAGE("skipped: no fish");
    return;
  }
  const scene s;
  const std::string file = saved(s, {"completion", "fish"}, "completion.fish");
  const std::string name = unique_name("fish");
  program holder = s.start({INSTANCE_GUARD_LOCK_HELPER, name});
  REQUIRE(holder.read_until("taken"));
  const auto complete = [&](const std::string& line) {
    // "WORD<tab>description", one a line
    program shell = s.start(
        {"fish", "--no-config", "-c", "set PATH (path dirname $argv[1]) $PATH; source $argv[2]; complete -C $argv[3]",
         INSTANCE_GUARD_TOOL, file, line},
        {.environment = {"HOME=" + (s / "."), "XDG_CONFIG_HOME=", "XDG_DATA_HOME="}});
    shell.in().reset();
    std::string words = " ";
    for (const std::string& each : lines_of(shell.read_all())) words += each.substr(0, each.find('\t')) + " ";
    return words;
  };
  for (const std::string& each : subcommands)
    CHECK(complete("instance-guard ").find(" " + each + " ") != std::string::npos);
  CHECK(complete("instance-guard sto") == " stop ");
  CHECK(complete("instance-guard stop --for") == " --force ");
  CHECK(complete("instance-guard status --scope h") == " host ");
  CHECK(complete("instance-guard status " + name).find(" " + name + " ") != std::string::npos);
  CHECK(complete("instance-guard run --name x -- tru").find(" true ") != std::string::npos);
  holder.in().reset();
  CHECK(holder.wait());
}

TEST_CASE("zsh completes subcommands, options, values, the names that are held, and the command") {
  if (!installed("zsh")) {
    MESSAGE("skipped: no zsh");
    return;
  }
  namespace fs = std::filesystem;
  const scene s;
  fs::create_directories(s / "functions");
  fs::create_directories(s / "bin");
  saved(s, {"completion", "zsh"}, "functions/_instance-guard");
  const std::string name = unique_name("zsh");
  program holder = s.start({INSTANCE_GUARD_LOCK_HELPER, name});
  REQUIRE(holder.read_until("taken"));
  // Says what it was given, but for what the completion itself asks.
  std::ofstream(s / "bin/instance-guard") << "#!/bin/sh\n[ \"$1\" = list ] && exec " INSTANCE_GUARD_TOOL
                                             " list\n"
                                             "echo \"given<$*>\"\n";
  fs::permissions(s / "bin/instance-guard", fs::perms::owner_all);
  terminal t({"zsh", "-f", "-i"},
             {s.mark(), "HOME=" + (s / "."), "PS1=zsh> ", "TERM=dumb", "PATH=" + (s / "bin") + ":/usr/bin:/bin"});
  REQUIRE(t.see("zsh> "));
  t.type("fpath=(" + (s / "functions") + " $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n");
  REQUIRE(t.see("ready"));
  const std::pair<std::string, std::string> cases[] = {
      {"instance-guard sto\t\n", "given<stop>"},
      {"instance-guard stop --for\t\n", "given<stop --force>"},
      {"instance-guard status --scope h\t\n", "given<status --scope host>"},
      {"instance-guard status " + name.substr(0, name.size() - 1) + "\t\n", "given<status " + name},
      {"instance-guard run -- instance-gua\t\n", "given<run -- instance-guard>"}};
  for (const auto& each : cases) {
    t.type(each.first);
    CHECK(t.see(each.second));
  }
  holder.in().reset();
  CHECK(holder.wait());
}
