// How long `run --wait` has waited so far: a line of its own on a terminal, renewed each second.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace tool {

/// Shows the line from its first second on, until it is destroyed; then the line is gone.
class waiting_line {
 public:
  /// Does nothing unless `wanted`.
  explicit waiting_line(bool wanted);
  waiting_line(const waiting_line&) = delete;
  waiting_line& operator=(const waiting_line&) = delete;
  ~waiting_line();

 private:
  void show();

  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace tool
