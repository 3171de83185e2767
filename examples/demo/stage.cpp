#include "stage.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

#include "actors.hpp"

namespace demo {

stage_directory::stage_directory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "instance-guard-demo-XXXXXX");
  if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
}

stage_directory::~stage_directory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

report::report() : start_(now()) {}

void report::scene(const std::string& title) { std::printf("\n%s\n", title.c_str()); }

void report::line(const std::string& what) {
  std::printf("  %5.2f s  %s\n", static_cast<double>(now() - start_) / 1e9, what.c_str());
  std::fflush(stdout);
}

void report::quote(const std::string& text) {
  std::size_t from = 0;
  while (from < text.size()) {
    std::size_t to = text.find('\n', from);
    if (to == std::string::npos) to = text.size();
    std::string each = text.substr(from, to - from);
    while (!each.empty() && each.back() == '\r') each.pop_back();
    if (!each.empty()) std::printf("           | %s\n", each.c_str());
    from = to + 1;
  }
}

void report::check(const std::string& what, const std::string& expected, const std::string& seen) {
  rows_.push_back({what, expected, seen});
  if (expected != seen) line("NOT AS EXPECTED: " + what + ": " + seen);
}

bool report::table() const {
  bool good = true;
  std::printf("\n%-46s  %-9s  %-9s\n", "PROMISE", "EXPECTED", "SEEN");
  for (const row& each : rows_) {
    const bool same = each.expected == each.seen;
    good = good && same;
    std::printf("%-46s  %-9s  %-9s%s\n", each.what.c_str(), each.expected.c_str(), each.seen.c_str(),
                same ? "" : "  DIFFERENT");
  }
  return good;
}

bool reader::more(long long until) {
  const long long rest = until - now();
  if (rest <= 0) return false;
  pollfd entry{descriptor_, POLLIN, 0};
  if (poll(&entry, 1, static_cast<int>(rest / 1'000'000) + 1) < 0) return errno == EINTR;
  if (entry.revents == 0) return true;
  char bytes[4096];
  const ssize_t got = read(descriptor_, bytes, sizeof bytes);
  if (got > 0) text_.append(bytes, static_cast<std::size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

std::string reader::wait_for(const std::string& beginning, std::chrono::milliseconds limit) {
  const long long until = now() + limit.count() * 1'000'000;
  for (;;) {
    std::size_t end = 0;
    while ((end = text_.find('\n')) != std::string::npos) {
      const std::string line = text_.substr(0, end);
      text_.erase(0, end + 1);
      if (line.rfind(beginning, 0) == 0) return line.substr(beginning.size());
    }
    if (!more(until)) return {};
  }
}

std::string reader::all(std::chrono::milliseconds limit) {
  const long long until = now() + limit.count() * 1'000'000;
  while (more(until)) {
  }
  return text_;
}

instance_guard::process_identity wait_for_runner(const std::filesystem::path& stage, const std::string& kind) {
  const long long until = now() + 5'000'000'000;
  instance_guard::process_identity result;
  while (now() < until) {
    std::ifstream file(stage / (kind + ".id"));
    if (file >> result.pid) {
      unsigned long long start = 0;
      file >> start;
      std::error_code ec;
      const auto now_there = instance_guard::process_identity::of(result.pid, ec);
      if (!ec && now_there.start_time == start) return now_there;
      return {};
    }
    usleep(1000);
  }
  return {};
}

long long last_stamp(const std::filesystem::path& stage, const std::string& kind) {
  long long stamp = 0;
  std::ifstream file(stage / (kind + ".stamp"), std::ios::binary);
  file.read(reinterpret_cast<char*>(&stamp), sizeof stamp);
  return file ? stamp : 0;
}

}  // namespace demo
