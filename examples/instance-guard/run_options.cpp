#include "run_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "duration.hpp"

namespace tool {
namespace {

/// Those that POSIX has. sigabbrev_np(3) is glibc's alone.
constexpr struct {
  std::string_view name;
  int number;
} signals[] = {{"HUP", SIGHUP},       {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"ILL", SIGILL},    {"TRAP", SIGTRAP},
               {"ABRT", SIGABRT},     {"BUS", SIGBUS},   {"FPE", SIGFPE},   {"KILL", SIGKILL},  {"USR1", SIGUSR1},
               {"SEGV", SIGSEGV},     {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},  {"TERM", SIGTERM},
               {"CHLD", SIGCHLD},     {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},  {"TTIN", SIGTTIN},
               {"TTOU", SIGTTOU},     {"URG", SIGURG},   {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},  {"PROF", SIGPROF},
               {"VTALRM", SIGVTALRM}, {"SYS", SIGSYS},   {"IO", SIGIO},     {"WINCH", SIGWINCH}};

#ifdef SIGRTMIN
/// "RTMIN", "RTMIN+3", "RTMAX-1": how containers and their managers call them.
int real_time_signal(std::string_view text) {
  const bool low = text.starts_with("RTMIN");
  if (!low && !text.starts_with("RTMAX")) return 0;
  text.remove_prefix(5);
  for (int distance = 0; distance <= SIGRTMAX - SIGRTMIN; ++distance)
    if (text == (low ? "+" : "-") + std::to_string(distance) || (distance == 0 && text.empty()))
      return low ? SIGRTMIN + distance : SIGRTMAX - distance;
  return 0;
}
#else
int real_time_signal(std::string_view) { return 0; }
#endif

/// "TERM", "SIGTERM", "term", "RTMIN+3" or "15"; 0 if it is none.
int signal_number(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (text.starts_with("SIG")) text.erase(0, 3);
  for (const auto& each : signals)
    if (text == each.name) return each.number;
  if (const int number = real_time_signal(text)) return number;
  for (int number = 1; number < NSIG; ++number)
    if (text == std::to_string(number)) return number;
  return 0;
}

bool set_duration(std::chrono::milliseconds& target, const std::string& text, std::string& why) {
  const auto duration = parse_duration(text);
  if (duration) target = *duration;
  else why = bad_duration(text);
  return duration.has_value();
}

/// Sets what an option with a value means. False: it can't, and `why` says so in a line.
bool set_option(run_settings& settings, std::string_view name, const std::string& value, std::string& why) {
  if (name == "--name") settings.names.push_back(value);
  if (name == "--session") {
    settings.session = value;
    if (value.empty()) why = "an empty ID marks nothing";
  }
  if (name == "--tag") settings.tag = value;
  if (name == "--wait") return set_duration(settings.wait, value, why);
  if (name == "--grace") return set_duration(settings.grace, value, why);
  if (name == "--timeout") return set_duration(settings.timeout, value, why);
  if (name == "--scope") {
    settings.scope = value == "host" ? instance_guard::lock_scope::host : instance_guard::lock_scope::user;
    if (value != "host" && value != "user") why = "'" + value + "' is neither user nor host";
  }
  if (name == "--stop-signal") {
    settings.stop_signal = signal_number(value);
    if (settings.stop_signal == 0) why = "'" + value + "' is no signal: TERM, INT, RTMIN+3, 15";
  }
  if (name == "--conflict-exit-code") {
    const bool number =
        !value.empty() && value.size() <= 3 && value.find_first_not_of("0123456789") == std::string::npos;
    settings.conflict_exit_code = number ? std::atoi(value.c_str()) : 256;
    if (settings.conflict_exit_code > 255) why = "'" + value + "' is not 0 to 255";
  }
  return why.empty();
}

/// What is about the name. (--quiet may stand without: there is nothing to be said then.)
constexpr const char* of_a_name[] = {"--scope", "--wait", "--replace", "--tag", "--conflict-exit-code"};

struct valued {
  std::string_view name;
  const char* type;
  const char* description;
};
constexpr valued valued_options[] = {
    {"--name", "NAME", "What must exist once; with several, all or none"},
    {"--scope", "SCOPE", "Who shares the name: user (default) or host"},
    {"--wait", "DURATION", "For a live holder to leave, instead of being refused"},
    {"--grace", "DURATION", "Between the stop signal and SIGKILL (default 5s)"},
    {"--stop-signal", "SIGNAL", "Sent first when the tree is ended (default TERM)"},
    {"--timeout", "DURATION", "Ends the tree after this; exit 124"},
    {"--session", "ID", "Marks everything below: INSTANCE_GUARD_SESSION=ID; see reap --session"},
    {"--tag", "VERSION", "Version of the program, for the record: shown and compared"},
    {"--conflict-exit-code", "N", "When refused (default 75)"}};

}  // namespace

void add_run_options(CLI::App& app, run_settings& settings) {
  for (const valued& each : valued_options) {
    const std::string name(each.name);
    const auto set = [name, &settings](const std::vector<std::string>& values) {
      std::string why;
      for (const std::string& value : values)
        if (!set_option(settings, name, value, why)) throw CLI::ValidationError(name, why);
    };
    CLI::Option* option = app.add_option_function<std::vector<std::string>>(name, set, each.description);
    option->type_name(each.type)->expected(1)->allow_extra_args(false);
    if (name == "--name") option->take_all();
    else option->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  }
  app.add_flag("--replace", settings.replace,
               "Stop a live holder first (never one that a service manager would restart)");
  app.add_flag("--quiet", settings.quiet, "Say nothing when refused, waiting or recovering");
}

std::string lacks_name(const CLI::App& app, const run_settings& settings) {
  if (settings.names.empty())
    for (const char* option : of_a_name)
      if (app.count(option) > 0) return option;
  return {};
}

bool read_plain_run(const std::vector<std::string>& own, run_settings& settings) {
  if (own.empty() || own.front() != "run") return false;
  std::vector<std::string_view> seen;
  for (std::size_t i = 1; i < own.size(); ++i) {
    const std::string& name = own[i];
    for (const std::string_view before : seen)
      if (before == name && name != "--name") return false;
    seen.push_back(name);
    if (name == "--replace" || name == "--quiet") {
      (name == "--quiet" ? settings.quiet : settings.replace) = true;
      continue;
    }
    bool known = false;
    for (const valued& each : valued_options) known = known || each.name == name;
    std::string why;
    // A value that looks like an option is a question for CLI11.
    if (!known || i + 1 == own.size() || own[i + 1].starts_with('-')) return false;
    if (!set_option(settings, name, own[++i], why)) return false;
  }
  if (settings.names.empty())
    for (const std::string_view option : of_a_name)
      if (std::find(seen.begin(), seen.end(), option) != seen.end()) return false;
  return true;
}

}  // namespace tool
