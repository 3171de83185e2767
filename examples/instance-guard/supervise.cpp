#include "supervise.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exit_codes.hpp"
#include "process_facts.hpp"
#include "run_names.hpp"

namespace tool {

using namespace std::chrono_literals;

namespace {

/// A signal is passed on after this: whoever sent it to all has then done so.
constexpr auto together = 5ms;
/// The stop of a service takes longer: the manager reads the list of its processes first. The warden
/// then knows who has had it.
constexpr auto stop_together = 20ms;
/// Service managers and terminals deliver a stop twice; what comes this much later is meant.
constexpr auto again = 250ms;

/// Who loses the terminal has had its own signal for that: so much of the grace is left to what the command does then.
std::chrono::milliseconds hang_up_time(const run_settings& settings) {
  return std::min<std::chrono::milliseconds>(settings.grace / 2, 5s);
}

/// True if somebody can continue the tool's process group: a shell in the same session, above it.
bool has_job_control() {
  process_facts facts;
  pid_t at = ::getppid();
  for (int depth = 0; depth < 64 && at > 0; ++depth) {
    if (::getsid(at) != ::getsid(0)) return false;
    if (::getpgid(at) != ::getpgrp()) return true;
    if (!read_facts(at, facts)) return false;
    at = facts.parent;
  }
  return false;
}

}  // namespace

supervisor::~supervisor() {
  if (ender_.joinable()) ender_.join();
}

outcome supervisor::watch(instance_guard::child& command) {
  command_ = &command;
  const bool outlives_session = inbox_.was_ignored(SIGHUP);
  const clock::time_point limit =
      settings_.timeout >= 24h * 36'500 ? clock::time_point::max() : clock::now() + settings_.timeout;
  outcome result;
  std::optional<instance_guard::exit_status> status;
  std::error_code ec;
  while (!status) {
    pollfd entries[4] = {{inbox_.fd(), POLLIN, 0},
                         {command.exit_fd(), POLLIN, 0},
                         {outlives_session || session_ended_ ? -1 : session_.leader(), POLLIN, 0},
                         {outlives_session || session_ended_ ? -1 : session_.server(), POLLIN, 0}};
    clock::time_point next = timed_out_ ? clock::time_point::max() : limit;
    next = std::min(next, hung_up_until_);
    for (const pending& each : pending_) next = std::min(next, each.due);
    int milliseconds = -1;
    if (next != clock::time_point::max()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - clock::now());
      milliseconds = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
    }
    ::poll(entries, 4, milliseconds);
    for (arrival what; inbox_.take(what);) hear(what);
    if (!timed_out_ && clock::now() >= limit) {
      timed_out_ = true;
      begin_ending();
    }
    if (entries[2].revents != 0 || entries[3].revents != 0) {
      session_ended_ = true;
      hang_up();
    }
    if (clock::now() >= hung_up_until_) {
      hung_up_until_ = clock::time_point::max();
      begin_ending();
    }
    send_due();
    if (entries[1].revents != 0) {
      follow_stop();
      status = command.wait_for(0ms, ec);
      if (ec) break;
    }
  }
  // What the command left behind. Nothing, most of the time.
  if (!ending() && !group_.wait_idle(0ms, ec)) begin_ending();
  while (ending() && !ended_) {
    pollfd entry = {inbox_.fd(), POLLIN, 0};
    ::poll(&entry, 1, -1);
    for (arrival what; inbox_.take(what);) hear(what);
  }
  if (ender_.joinable()) ender_.join();
  if (!status) {
    say("instance-guard: the warden is gone, and the command was ended: " + ec.message());
    result.code = exit_fault;
    return result;
  }
  result.code = timed_out_ ? static_cast<int>(exit_timed_out) : status->shell_code();
  result.clean = status->success() && !timed_out_;
  if (interrupted_by_ != 0 && status->signal() == interrupted_by_) result.died_by = interrupted_by_;
  return result;
}

void supervisor::hear(const arrival& what) {
  switch (what.number) {
    case 0: return;
    case SIGCHLD:
      // As pid 1 of a container it inherits what has lost its parent elsewhere. Its warden is not
      // among those that this reaps.
      while (::waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      return;
    case SIGTERM:
    case SIGHUP:
      if (what.number == SIGHUP && !ending() && is_hang_up(what)) return hang_up();
      if (ending()) force();
      else begin_ending(what.number == settings_.stop_signal && !what.from_kernel ? stop_together : 0ms);
      return;
    case SIGINT:
    case SIGQUIT:
      if (ending()) return force();
      if (what.from_kernel) interrupted_by_ = what.number;
      break;
    case SIGCONT:
      continued_ = true;
      if (command_is_stopped()) pending_.push_back({SIGCONT, clock::now() + together});
      return;
    case SIGTTIN:
    case SIGTTOU:
    case SIGPIPE: return;  // about the terminal, or the tool's own stderr: not meant for the command
    default: break;
  }
  if (!sent_to_all(what)) pending_.push_back({what.number, clock::now() + together});
}

/// By the terminal, or by the shell that has lost it: all of the job have had it.
bool supervisor::is_hang_up(const arrival& what) const {
  return shares_group_ && has_terminal_ && (what.from_kernel || what.sender == ::getsid(0));
}

void supervisor::hang_up() {
  if (hung_up_) return;
  hung_up_ = true;
  hung_up_until_ = clock::now() + hang_up_time(settings_);
}

bool supervisor::sent_to_all(const arrival& what) const {
  if (what.from_kernel) return shares_group_;
  // From the tree itself: vim and shells signal their whole process group, kill(0, …).
  process_facts facts;
  const pid_t warden = group_.warden().pid;
  pid_t at = what.sender;
  for (int depth = 0; depth < 64 && at > 1; ++depth) {
    if (at == warden) return shares_group_;
    if (!read_facts(at, facts)) return false;
    at = facts.parent;
  }
  return false;
}

void supervisor::send_due() {
  for (std::size_t i = 0; i < pending_.size();) {
    if (clock::now() < pending_[i].due) {
      ++i;
      continue;
    }
    const int number = pending_[i].number;
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
    // Whoever continues a job continues all of it.
    if (number == SIGCONT && !command_is_stopped()) continue;
    std::error_code ignored;  // it may have ended
    command_->signal(number, ignored);
  }
}

bool supervisor::command_is_stopped() const {
  process_facts facts;
  return command_ != nullptr && read_facts(command_->id().pid, facts) && facts.state == 'T';
}

/// The command has stopped: so does the tool, and its starter sees it. Only where there is job
/// control: elsewhere nobody would continue it, and a time limit could not strike.
void supervisor::follow_stop() {
  continued_ = false;
  const int number = command_->take_stop();
  if (number == 0 || ending()) return;
  for (arrival what; inbox_.take(what);) hear(what);
  if (continued_ || ending()) return;  // it goes on already
  if (has_terminal_ && has_job_control()) return inbox_.suffer(number);
  // Without the tool the kernel would not have let Ctrl-Z stop it.
  if (number == SIGTSTP && has_terminal_) pending_.push_back({SIGCONT, clock::now()});
}

void supervisor::begin_ending(std::chrono::milliseconds delay) {
  if (ending()) return;
  ending_began_ = clock::now();
  const std::chrono::milliseconds grace = settings_.grace - (hung_up_ ? hang_up_time(settings_) : 0ms);
  ender_ = std::thread([this, delay, grace] {
    std::this_thread::sleep_for(delay);
    std::error_code ignored;
    group_.terminate(grace, ignored);
    ended_ = true;
    inbox_.note();
  });
}

void supervisor::force() {
  if (clock::now() - ending_began_ < again) return;
  // Two may end a group at once; the shorter grace counts.
  std::error_code ignored;
  group_.terminate(0ms, ignored);
}

}  // namespace tool
