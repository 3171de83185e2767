// The signals that reach the tool while its command runs, in the order of their arrival.
#pragma once

#include <csignal>
#include <sys/types.h>
#include <vector>

namespace tool {

struct arrival {
  int number = 0;            ///< 0: a note of the tool to itself
  bool from_kernel = false;  ///< by the terminal, not by a process: its whole foreground had it
  pid_t sender = 0;
};

/// Catches what a process can catch, but for what reports its own faults, and nothing that was
/// ignored when it was started: a SIGHUP under nohup stays ignored. From now on: a signal in the
/// tool's last moments must not change what it exits with. One object in a process.
class signal_inbox {
 public:
  signal_inbox();
  signal_inbox(const signal_inbox&) = delete;
  signal_inbox& operator=(const signal_inbox&) = delete;

  int fd() const noexcept { return read_end_; }
  /// The next one; false: there is none.
  bool take(arrival& out) noexcept;
  /// From any thread: wakes whoever waits for fd().
  void note() const noexcept;
  /// True if it was ignored when the tool was started.
  bool was_ignored(int number) const noexcept;
  /// As if nobody caught it. Returns when it did not end the process: stopped and continued.
  void suffer(int number) const noexcept;

 private:
  int read_end_ = -1;  // never closed: the handler goes on writing
  std::vector<int> ignored_;
};

}  // namespace tool
