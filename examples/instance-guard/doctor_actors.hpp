// The processes with which `doctor` tries things: this program again, in a role.
//
// Each ends by itself after a minute, whatever becomes of the doctor.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <instance_guard/file_descriptor.hpp>
#include <instance_guard/process_identity.hpp>

namespace tool {

/// What a hidden `doctor --play ROLE…` does: its exit code.
int play(const std::vector<std::string>& words);

/// The command line of a role.
std::vector<std::string> role(const std::vector<std::string>& words);

/// Longer than anything here takes.
inline constexpr std::chrono::seconds patience{30};

/// A child of the doctor in a role. Ended and reaped with the object.
class [[nodiscard]] actor {
 public:
  explicit actor(const std::vector<std::string>& words);
  actor(const actor&) = delete;
  actor& operator=(const actor&) = delete;
  ~actor();

  /// The next line that it, or what it started, says; nothing at the end or after `patience`.
  std::optional<std::string> line();
  void kill() const;
  /// Its exit code; -1 if it was killed or does not end.
  int wait();

 private:
  pid_t pid_ = -1;
  instance_guard::file_descriptor in_ = {};
  instance_guard::file_descriptor out_ = {};
  std::string buffer_ = {};
  std::optional<int> code_ = {};
};

/// The number behind "WORD ", if the line begins so; else 0.
pid_t number_behind(const std::string& line, const std::string& word);

/// Removes what a check left of its name where this host does not keep the promise.
void forget(const std::string& name);

/// A name that nobody else takes.
std::string doctors_name(const std::string& purpose);

}  // namespace tool
