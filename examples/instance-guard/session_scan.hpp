// Which processes belong to a session: those whose environment carries its mark. And ending them,
// nobody else.
//
// A process is ended only if, read from /proc at that moment, all of this holds: all its user ids
// are the caller's; INSTANCE_GUARD_SESSION in its environment is exactly the id, and nothing else;
// it is neither the caller nor above it, nor process 1; it is in no service; it does not carry
// INSTANCE_GUARD_KEEP=1. The signal goes through a handle that was opened before all this was read,
// and after which the process was alive: it can't have become another one in between.
#pragma once

#include <csignal>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <instance_guard/process_identity.hpp>

#include "process_facts.hpp"

namespace tool {

inline constexpr char session_variable[] = "INSTANCE_GUARD_SESSION";

struct marked_process {
  instance_guard::process_identity who = {};
  std::string command = {};
  std::string kept = {};  ///< why it is not ended; empty: it is
};

class session_scan {
 public:
  explicit session_scan(std::string id);

  /// Looks at every process, also at those that start meanwhile, and gives the marked ones to
  /// `visit` at once. False if it has to be done again to be sure: something was executing a
  /// program or ending just then.
  bool look(const std::function<void(const marked_process&)>& visit);

  /// Sends a signal, after reading again whether it is to be ended. False: it is not, or is gone;
  /// `fault` then says what the system said, if it did.
  bool send(const marked_process& target, int number, std::error_code& fault);

  /// Of the caller's own processes, those that could not be read in the last look.
  std::size_t unreadable() const { return unreadable_; }

 private:
  enum class answer { no, yes, again, unreadable };
  answer judge(pid_t pid, marked_process& out);
  bool is_kin(pid_t pid) const;
  void note_kin();

  std::string id_;
  std::vector<pid_t> kin_;
  std::size_t unreadable_ = 0;
};

/// How long it runs, from its start time.
std::chrono::seconds age_of(const instance_guard::process_identity& who);

}  // namespace tool
