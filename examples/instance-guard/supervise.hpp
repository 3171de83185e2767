// A command while it runs: what reaches the tool meanwhile, and the end of its tree.
#pragma once

#include <atomic>
#include <chrono>
#include <instance_guard/process_group.hpp>
#include <optional>
#include <thread>
#include <unistd.h>
#include <vector>

#include "run_options.hpp"
#include "run_signals.hpp"
#include "run_terminal.hpp"
#include "session_watch.hpp"

namespace tool {

struct outcome {
  int code = 0;        ///< what to exit with
  int died_by = 0;     ///< the terminal's signal that ended the command: end by it, too
  bool clean = false;  ///< the command ended by itself, with success
};

class supervisor {
 public:
  supervisor(const run_settings& settings, instance_guard::process_group& group, signal_inbox& inbox,
             const terminal_keeper& terminal, const session_watch& session)
      : settings_(settings),
        group_(group),
        inbox_(inbox),
        session_(session),
        has_terminal_(static_cast<bool>(terminal)) {}
  ~supervisor();

  /// Until the command and everything that it left behind have ended.
  outcome watch(instance_guard::child& command);

 private:
  using clock = std::chrono::steady_clock;

  void hear(const arrival& what);
  void send_due();
  void follow_stop();
  void begin_ending(std::chrono::milliseconds delay = {});
  void force();
  bool is_hang_up(const arrival& what) const;
  void hang_up();
  bool ending() const noexcept { return ender_.joinable(); }
  bool sent_to_all(const arrival& what) const;
  bool command_is_stopped() const;

  struct pending {
    int number;
    clock::time_point due;
  };

  const run_settings& settings_;
  instance_guard::process_group& group_;
  signal_inbox& inbox_;
  const session_watch& session_;
  const bool has_terminal_;
  const bool shares_group_ = ::getpgrp() > 0;  // 0: it is that of another pid namespace
  instance_guard::child* command_ = nullptr;
  std::vector<pending> pending_;
  bool session_ended_ = false;
  bool hung_up_ = false;
  clock::time_point hung_up_until_ = clock::time_point::max();  ///< then the tree is ended
  bool timed_out_ = false;
  bool continued_ = false;
  int interrupted_by_ = 0;
  clock::time_point ending_began_ = {};
  std::thread ender_;
  std::atomic<bool> ended_ = false;
};

}  // namespace tool
