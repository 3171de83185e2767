// doctor: do children end with their owner here?
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <instance_guard/pid_lockfile.hpp>
#include <instance_guard/process_group.hpp>

#include "doctor.hpp"
#include "doctor_actors.hpp"
#include "process_facts.hpp"
#include "text.hpp"

namespace tool {

using instance_guard::process_group;
using instance_guard::process_handle;
using instance_guard::process_identity;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// What a group's child says first: "ready PID"; 0: it says nothing.
pid_t first_pid(instance_guard::child& one) {
  std::string text;
  char c = 0;
  while (one.out() && ::read(one.out().get(), &c, 1) == 1 && c != '\n') text += c;
  return number_behind(text, "ready");
}

finding check_adoption() {
  std::error_code ec;
  process_group group({.grace = milliseconds(100)}, ec);
  if (ec) return found("adopt", false, "no warden: " + ec.message());
  instance_guard::spawn_options options;
  options.out = instance_guard::stdio::pipe();
  auto child = group.spawn(role({"daemon"}), options, ec);
  if (ec) return found("adopt", false, "nothing can be started: " + ec.message());
  const pid_t pid = first_pid(child);
  const pid_t warden = group.warden().pid;
  process_facts facts;
  // It says "ready" before its parent has ended, or after.
  const auto end = steady_clock::now() + patience;
  while (pid > 0 && read_facts(pid, facts) && facts.parent != warden && steady_clock::now() < end)
    std::this_thread::sleep_for(milliseconds(1));
  const bool adopted = pid > 0 && facts.parent == warden;
  const auto report = group.terminate(ec);
  if (!adopted) return found("adopt", false, "a double fork with setsid was lost: not adopted");
  return found("adopt", !ec && report.proven_empty,
               "double fork + setsid came back to the warden (" + std::string(to_string(report.mechanism)) + ")" +
                   (report.proven_empty ? "" : "; but: " + report.str()));
}

/// An owner with four descendants.
struct owner_with_children {
  explicit owner_with_children(const std::string& name) : owner({"owner", name}) {
    std::error_code ec;
    while (children.size() < wanted || !warden) {
      const auto line = owner.line();
      if (!line) break;
      if (const pid_t pid = number_behind(*line, "ready"); pid > 0) children.push_back(process_identity::of(pid, ec));
      if (const pid_t pid = number_behind(*line, "warden"); pid > 0) warden = process_identity::of(pid, ec);
    }
  }
  bool complete() const { return children.size() == wanted && warden; }
  std::size_t alive() const {
    std::size_t count = 0;
    for (const process_identity& each : children) count += is_alive(each) ? 1U : 0U;
    return count;
  }
  /// True once none is left.
  bool gone(milliseconds limit) const {
    const auto end = steady_clock::now() + limit;
    while (alive() > 0) {
      if (steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return true;
  }

  static constexpr std::size_t wanted = 4;
  actor owner;
  process_identity warden = {};
  std::vector<process_identity> children = {};
};

finding check_kill() {
  const std::string name = doctors_name("kill");
  owner_with_children all(name);
  if (!all.complete()) {
    forget(name);
    return found("kill -9", false, "not tried: an owner can't be started");
  }
  const auto begin = steady_clock::now();
  all.owner.kill();
  const bool gone = all.gone(patience);
  const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
  all.owner.wait();
  const bool free = actor({"start", name}).wait() == 0;
  forget(name);
  const std::string count = std::to_string(all.wanted - all.alive()) + " of " + std::to_string(all.wanted) +
                            " descendants gone in " + std::to_string(took.count()) + " ms";
  return found("kill -9", gone && free, "owner killed, " + count + (free ? "" : "; the next start fails"));
}

finding check_both() {
  const std::string name = doctors_name("both");
  owner_with_children all(name);
  if (!all.complete()) {
    forget(name);
    return found("both", false, "not tried: an owner can't be started");
  }
  std::error_code ec;
  process_handle warden = process_handle::open(all.warden, ec);
  if (!ec) warden.signal(SIGKILL, ec);
  if (ec) return found("both", false, "not tried: the warden can't be killed: " + ec.message());
  all.owner.kill();
  all.owner.wait();
  warden.wait_for(patience, ec);
  all.gone(milliseconds(200));  // those whose parent it was; the others need the next start
  const std::size_t left = all.alive();
  const bool started = actor({"start", name}).wait() == 0;
  forget(name);
  const bool gone = all.gone(milliseconds(1'000));
  const std::string text = "owner and warden killed: " + std::to_string(left) + " left";
  return found("both", started && gone,
               text + (gone ? ", ended by the next start" : ", and not ended by the next start"));
}

finding check_setuid() {
  if (::geteuid() != 0) return found("setuid", false, "not tried: needs a setuid program; such a child may survive");
  std::error_code ec;
  process_group group({.grace = milliseconds(100)}, ec);
  instance_guard::spawn_options options;
  options.out = instance_guard::stdio::pipe();
  auto child = ec ? instance_guard::child() : group.spawn(role({"other-user"}), options, ec);
  if (ec) return found("setuid", false, "not tried: " + ec.message());
  if (first_pid(child) == 0) return found("setuid", false, "not tried: a child can't become another user here");
  const auto report = group.terminate(ec);
  return found("setuid", !ec && report.proven_empty,
               report.proven_empty ? "a child that became another user ended as well"
                                   : "a child that became another user: " + report.str());
}

}  // namespace

std::vector<finding> check_children() { return {check_adoption(), check_kill(), check_both(), check_setuid()}; }

}  // namespace tool
