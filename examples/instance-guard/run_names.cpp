#include "run_names.hpp"

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <instance_guard/instance_guard.hpp>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "exit_codes.hpp"
#include "lock_view.hpp"
#include "text.hpp"
#include "waiting_line.hpp"

namespace tool {
namespace {

using instance_guard::lock_state;
using instance_guard::lock_status;
using instance_guard::no_limit;
using instance_guard::single_instance;

/// Tells a service manager what it is about: sd_notify(3).
void notify(const std::string& text) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address = {};
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  const std::size_t size = std::strlen(path);
  if (size >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, size);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return;
  ::sendto(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size));
  ::close(socket);
}

/// "3 children of pid 70240 (dead for 2s)".
std::string left_of(const lock_status& status) {
  const auto& holder = *status.holder;
  const auto ended = ended_at(status);
  // The file is dated when somebody sees the holder end: until then it shows when it was taken.
  const bool seen = ended && *ended > holder.acquired_at + std::chrono::seconds(1);
  return (status.children.empty() ? "the children" : counted(status.children.size(), "child", "children")) +
         " of pid " + std::to_string(holder.process.pid) + (seen ? " (dead for " + age_since(*ended) + ")" : " (dead)");
}

std::string at_most(std::chrono::milliseconds limit) {
  if (limit == no_limit) return "as long as it takes";
  return "at most " + age(std::chrono::ceil<std::chrono::seconds>(limit));
}

/// Whom a start will wait for; empty: nobody, as it seems.
std::string waiting_for(const run_settings& settings, const lock_status& status) {
  const bool dead = status.state == lock_state::cleaning_up;
  if (!dead && (status.state != lock_state::held || settings.wait.count() == 0)) return {};
  if (!status.holder) return status.name + ": waiting for its holder, " + at_most(settings.wait);
  const auto& holder = *status.holder;
  const std::string pid = "pid " + std::to_string(holder.process.pid);
  if (!dead) {
    const auto since = held_since(status);
    return status.name + ": waiting for " + pid + " (" + shown(holder.started_from) +
           (since ? ", for " + age_since(*since) : "") + "), " + at_most(settings.wait);
  }
  constexpr std::chrono::milliseconds more{10'000};
  return status.name + ": waiting for " + left_of(status) + " to end, " +
         at_most(holder.grace > no_limit - more ? no_limit : holder.grace + more);
}

}  // namespace

void write_out(const std::string& text) {
  // In the background of a terminal with `stty tostop`: this is no reason to stop.
  sigset_t only, before;
  ::sigemptyset(&only);
  ::sigaddset(&only, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &only, &before);
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t wrote = ::write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) break;
    at += static_cast<std::size_t>(wrote);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void say(const std::string& text) { write_out(text.ends_with('\n') ? text : text + "\n"); }

instance_guard::group_options run_group_options(const run_settings& settings) {
  instance_guard::group_options options;
  options.grace = settings.grace;
  options.stop_signal = settings.stop_signal;
  options.keep_session = true;
  options.inherit_descriptors = true;
  return options;
}

std::optional<int> take_names(const run_settings& settings, const std::vector<std::string>& command,
                              single_instance& guard) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  instance_guard::single_instance_options options;
  options.lock.scope = settings.scope;
  options.lock.wait = settings.wait;
  options.lock.replace = settings.replace;
  options.lock.version = settings.tag;
  options.lock.arguments = command;
  options.children = run_group_options(settings);
  options.ends = instance_guard::reach::spawned;
  options.also_hold.assign(settings.names.begin() + 1, settings.names.end());
  options.conflict_exit_code = settings.conflict_exit_code;

  std::error_code ec;
  std::string waiting;
  for (const std::string& name : settings.names) {
    const lock_status now = instance_guard::query_lock(name, options.lock, ec);
    if (ec == instance_guard::errc::invalid_name) {
      say("instance-guard run: --name '" + shown(name) + "': " + ec.message());
      return exit_fault;
    }
    if (waiting.empty()) waiting = waiting_for(settings, now);
  }
  const auto began = std::chrono::steady_clock::now();
  if (!waiting.empty()) {
    if (!settings.quiet) say(waiting);
    notify("STATUS=" + waiting.substr(waiting.find(": ") + 2));
  }
  const std::string& name = settings.names.front();
  {
    // A signal now lets go of what is held already, before it ends the tool.
    const instance_guard::signal_cleanup early(instance_guard::cleanup_options{}, ec);
    const waiting_line so_far(terminal && !waiting.empty() && !settings.quiet);
    guard = single_instance::acquire(name, options, ec);
  }
  if (ec) {
    const bool conflict = instance_guard::is_conflict(ec);
    const int code = conflict ? settings.conflict_exit_code : exit_fault;
    std::string text = as_of_tool(guard.failure_text(name, ec, options, code, terminal));
    if (terminal && !settings.replace && text.find("instance-guard stop ") != std::string::npos)
      text += "           or start yours with --replace\n";
    if (!settings.quiet || !conflict) say(text);
    return code;
  }
  std::string started = name + ": started";
  if (!waiting.empty()) {
    const auto waited = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began);
    started += ", after " + age(waited);
    notify("STATUS=running");
  }
  if (const auto& last = guard.recovered_from())
    started += "; the previous run (pid " + std::to_string(last->process.pid) + ", started " +
               age_since(last->acquired_at) + " ago) did not end cleanly";
  if (!settings.quiet && (guard.recovered_from() || (terminal && !waiting.empty()))) say(started);
  return {};
}

}  // namespace tool
