// doctor: which processes can be seen here?
#include <pwd.h>
#include <unistd.h>

#include <string>

#include "doctor.hpp"
#include "process_facts.hpp"
#include "process_text.hpp"
#include "text.hpp"

namespace tool {
namespace {

struct count {
  std::size_t all = 0;
  std::size_t seen = 0;
};

/// A kernel thread has neither executable nor environment; it is nobody's.
bool is_kernel_thread(const process_facts& facts) { return facts.pid == 2 || facts.parent == 2; }

/// Executable and directory can be told.
bool is_seen(pid_t pid) {
  const std::string process = "/proc/" + std::to_string(pid);
  char target[1];
  return ::readlink((process + "/exe").c_str(), target, sizeof target) >= 0 &&
         ::readlink((process + "/cwd").c_str(), target, sizeof target) >= 0;
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr && entry->pw_name != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

}  // namespace

std::vector<finding> check_sight() {
  count own;
  count others;
  for (const pid_t pid : all_processes()) {
    process_facts facts;
    if (!read_facts(pid, facts) || facts.ended() || is_kernel_thread(facts)) continue;
    const bool seen = is_seen(pid);
    process_facts again;
    if (!seen && (!read_facts(pid, again) || again.ended())) continue;  // ended meanwhile
    count& which = facts.users[1] == ::geteuid() ? own : others;
    ++which.all;
    which.seen += seen ? 1U : 0U;
  }
  std::vector<finding> result;
  const std::string user = "user " + shown(user_name());
  if (own.all == 0) result.push_back(found("own", false, "no process can be seen"));
  else if (own.seen == own.all)
    result.push_back(found("own", true, "all " + counted(own.all, "process", "processes") + " of " + user));
  else
    result.push_back({"own", verdict::part,
                      "no executable or directory of " + std::to_string(own.all - own.seen) + " of " +
                          counted(own.all, "process", "processes") + " of " + user});
  const std::string of_others = " of other users";
  if (others.seen == others.all)
    result.push_back({"others", verdict::ok,
                      others.all == 0 ? "none there, or none shown (hidepid)"
                                      : "all " + counted(others.all, "process", "processes") + of_others});
  else
    result.push_back(
        {"others", verdict::part,
         "no executable or directory of " + counted(others.all - others.seen, "process", "processes") + of_others});
  return result;
}

}  // namespace tool
