#include "waiting_line.hpp"

#include "run_names.hpp"
#include "text.hpp"

namespace tool {

using namespace std::chrono;

waiting_line::waiting_line(bool wanted) {
  if (wanted) thread_ = std::thread([this] { show(); });
}

waiting_line::~waiting_line() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_over_ = true;
  }
  over_.notify_one();
  thread_.join();
}

void waiting_line::show() {
  std::unique_lock<std::mutex> lock(mutex_);
  bool shown = false;
  while (!over_.wait_for(lock, seconds(1), [this] { return is_over_; })) {
    const auto waited = duration_cast<seconds>(steady_clock::now() - began_);
    write_out("\r  for " + age(waited) + " so far, Ctrl-C gives up\x1b[K");
    shown = true;
  }
  if (shown) write_out("\r\x1b[K");
}

}  // namespace tool
