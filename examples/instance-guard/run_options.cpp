#include "run_options.hpp"

#include <CLI/CLI.hpp>
#include <cctype>
#include <instance_guard/detail/signal_name.hpp>
#include <string_view>

#include "duration.hpp"

namespace tool {
namespace {

/// An option whose value is a duration.
CLI::Option* add_duration(CLI::App& app, const std::string& name, std::chrono::milliseconds& target,
                          const std::string& description) {
  return app
      .add_option_function<std::string>(
          name,
          [name, &target](const std::string& text) {
            const auto duration = parse_duration(text);
            if (!duration) throw CLI::ValidationError(name, bad_duration(text));
            target = *duration;
          },
          description)
      ->type_name("DURATION");
}

/// "TERM", "SIGTERM", "term" or "15"; 0 if it is none.
int signal_number(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (text.rfind("SIG", 0) != 0) text = "SIG" + text;
  for (int number = 1; number < NSIG; ++number) {
    const char* name = instance_guard::detail::standard_signal_name(number);
    if (text == "SIG" + std::to_string(number) || (name != nullptr && text == name)) return number;
  }
  return 0;
}

}  // namespace

void add_run_options(CLI::App& app, run_settings& settings) {
  app.add_option("--name", settings.names, "what must exist once; with several, all or none")
      ->type_name("NAME")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option_function<std::string>(
         "--scope",
         [&settings](const std::string& text) {
           if (text != "user" && text != "host") throw CLI::ValidationError("--scope", "'" + text + "' is neither user nor host");
           settings.scope = text == "host" ? instance_guard::lock_scope::host : instance_guard::lock_scope::user;
         },
         "who shares the name: user (default) or host")
      ->type_name("SCOPE");
  add_duration(app, "--wait", settings.wait, "for a live holder to leave, instead of being refused");
  app.add_flag("--replace", settings.replace, "stop a live holder first (never one that a service manager would restart)");
  add_duration(app, "--grace", settings.grace, "between the stop signal and SIGKILL (default 5s)");
  app.add_option_function<std::string>(
         "--stop-signal",
         [&settings](const std::string& text) {
           settings.stop_signal = signal_number(text);
           if (settings.stop_signal == 0) throw CLI::ValidationError("--stop-signal", "'" + text + "' is no signal: TERM, INT, 15");
         },
         "sent first when the tree is ended (default TERM)")
      ->type_name("SIGNAL");
  add_duration(app, "--timeout", settings.timeout, "ends the tree after this; exit 124");
  app.add_option("--session", settings.session, "marks everything below: INSTANCE_GUARD_SESSION=ID; see reap --session")
      ->type_name("ID");
  app.add_option("--tag", settings.tag, "version of the program, for the record: shown and compared")->type_name("VERSION");
  app.add_option("--conflict-exit-code", settings.conflict_exit_code, "when refused (default 75)")
      ->check(CLI::Range(0, 255))
      ->type_name("N");
  app.add_flag("--quiet", settings.quiet, "say nothing when refused, waiting or recovering");
}

}  // namespace tool
