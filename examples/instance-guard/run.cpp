// instance-guard run: a command whose whole tree ends with it, and perhaps names that it holds.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fcntl.h>
#include <instance_guard/instance_guard.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <system_error>
#include <unistd.h>

#include "exit_codes.hpp"
#include "run_names.hpp"
#include "run_options.hpp"
#include "subcommands.hpp"
#include "supervise.hpp"
#include "text.hpp"

namespace tool {
namespace {

using instance_guard::child;
using instance_guard::process_group;

constexpr char help_text[] =
    "The command stands behind --. Its exit status is the tool's; 128+n when signal n\n"
    "ended it, 124 on timeout, 75 when refused, 126 and 127 as the shell, 125 for a\n"
    "fault of the tool.\n"
    "\n"
    "Examples:\n"
    "  instance-guard run -- make test            nothing of it stays behind\n"
    "  instance-guard run --name shiva -- python3 shiva/main.py\n"
    "  instance-guard run --name shiva --name wallet-0x39a1 --wait 1m -- ./shiva\n"
    "  instance-guard run --timeout 10m --grace 2s -- pytest -n 8\n"
    "  instance-guard run --session \"$ID\" -- claude";

/// The file that a shell would run for this word; the word itself if there is none.
std::string found_in_path(const std::string& word) {
  const char* path = std::getenv("PATH");
  if (word.find('/') != std::string::npos || path == nullptr) return word;
  const std::string list = path;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(':', at), list.size());
    const std::string directory = list.substr(at, end - at);
    const std::string file = (directory.empty() ? "." : directory) + "/" + word;
    if (::access(file.c_str(), X_OK) == 0) return file;
    at = end + 1;
  }
  return word;
}

/// As shells judge it: a program for another machine is no script.
bool is_binary(const std::string& file) {
  const instance_guard::file_descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  char bytes[128];
  const ssize_t size = opened ? ::read(opened.get(), bytes, sizeof bytes) : 0;
  const std::string_view start(bytes, size > 0 ? static_cast<std::size_t>(size) : 0);
  return start.substr(0, start.find('\n')).find('\0') != std::string_view::npos;
}

child start(process_group& group, const run_settings& settings, std::vector<std::string> command, std::error_code& ec) {
  instance_guard::spawn_options options;
  options.same_process_group = true;
  if (!settings.session.empty()) options.environment.push_back("INSTANCE_GUARD_SESSION=" + settings.session);
  // It names this process, and the command is another.
  const char* watchdog = std::getenv("WATCHDOG_PID");
  if (watchdog != nullptr && watchdog == std::to_string(::getpid())) options.environment.push_back("WATCHDOG_PID");
  child result = group.spawn(command, options, ec);
  if (ec != std::errc::executable_format_error) return result;
  // A script without its first line, as execvp(3) and shells run it.
  command.front() = found_in_path(command.front());
  if (is_binary(command.front())) return result;
  command.insert(command.begin(), "/bin/sh");
  return group.spawn(command, options, ec);
}

/// The command alone reads stdin and writes stdout: who waits for their end waits for it.
void let_go_of_streams() {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO}) ::dup2(null, stream);
  if (null > STDERR_FILENO) ::close(null);
}

/// As the command ended, so that a script sees that its user wanted to leave.
void die_by(int number, const signal_inbox& inbox) {
  const rlimit none = {};
  ::setrlimit(RLIMIT_CORE, &none);  // the command has left one, if any
  inbox.suffer(number);
}

}  // namespace

int run(const run_settings& settings, const std::vector<std::string>& command) {
  std::error_code ec;
  // Now: the session may end while a name is waited for.
  const session_watch session(static_cast<bool>(terminal_keeper()));
  instance_guard::single_instance guard;
  process_group alone(nullptr);
  if (!settings.names.empty()) {
    if (const auto code = take_names(settings, command, guard)) return *code;
  } else {
    alone = process_group(run_group_options(settings), ec);
    if (ec) {
      const bool missing = ec == std::errc::function_not_supported;
      say("instance-guard: cannot start a warden: " + ec.message() +
          (missing ? "; instance-guard doctor tells what the system refuses, or lacks" : ""));
      return exit_fault;
    }
  }
  process_group& group = settings.names.empty() ? alone : guard.children();
  const terminal_keeper terminal;
  signal_inbox inbox;
  outcome result;
  {
    child started = start(group, settings, command, ec);
    if (ec) {
      say("instance-guard: cannot run '" + shown(command.front()) + "': " + ec.message());
      return ec == std::errc::no_such_file_or_directory ? exit_not_found : exit_cannot_execute;
    }
    let_go_of_streams();
    supervisor life(settings, group, inbox, terminal, session);
    result = life.watch(started);
  }
  terminal.restore(!result.clean);
  guard.release();
  alone = process_group(nullptr);
  if (result.died_by != 0) die_by(result.died_by, inbox);
  return result.code;
}

void add_run(CLI::App& root, invocation& call) {
  auto settings = std::make_shared<run_settings>();
  CLI::App* run_command = root.add_subcommand("run", "Run a command whose whole tree ends with it.");
  run_command->footer(help_text);
  add_run_options(*run_command, *settings);
  run_command->callback([settings, run_command, &call] {
    if (!call.has_command || call.command.empty() || call.command.front().empty())
      throw CLI::ValidationError("a command is missing: run [OPTION]... -- COMMAND");
    if (const std::string option = lacks_name(*run_command, *settings); !option.empty())
      throw CLI::ValidationError(option, "means nothing without --name: nothing would exist once");
    call.exit_code = run(*settings, call.command);
  });
}

}  // namespace tool
