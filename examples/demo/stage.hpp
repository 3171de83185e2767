// What the demo's director needs: a place, a clock, a list of what was expected and what was seen.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <instance_guard/instance_guard.hpp>

namespace demo {

/// A temporary directory that goes with its owner.
class stage_directory {
 public:
  stage_directory();
  ~stage_directory();
  stage_directory(const stage_directory&) = delete;
  stage_directory& operator=(const stage_directory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Prints each event with the seconds since the start, and collects the checks.
class report {
 public:
  report();
  void scene(const std::string& title);
  void line(const std::string& what);
  void quote(const std::string& text);
  void check(const std::string& what, const std::string& expected, const std::string& seen);
  /// The table of all checks; true if each was as expected.
  bool table() const;

 private:
  struct row {
    std::string what, expected, seen;
  };
  long long start_;
  std::vector<row> rows_;
};

/// Reads lines of a child's output as they come.
class reader {
 public:
  explicit reader(int descriptor) : descriptor_(descriptor) {}
  /// The rest of the first line that starts with `beginning`; empty when the child ended or
  /// `limit` passed first.
  std::string wait_for(const std::string& beginning, std::chrono::milliseconds limit);
  /// Everything until the end.
  std::string all(std::chrono::milliseconds limit);

 private:
  bool more(long long until);
  int descriptor_;
  std::string text_;
};

/// The runner that wrote STAGE/KIND.id, once it has.
instance_guard::process_identity wait_for_runner(const std::filesystem::path& stage, const std::string& kind);

/// The last time that a runner stamped; 0: never.
long long last_stamp(const std::filesystem::path& stage, const std::string& kind);

}  // namespace demo
