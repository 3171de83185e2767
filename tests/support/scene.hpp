// One test's processes: they are started here, and none may be left when it ends.
//
// The helper program is copied into a directory of its own. So whatever such a process does to
// its environment, name or descriptors, its executable still tells whose it is; processes that
// run another program are found by an environment variable that names the same directory.
#pragma once

#include <doctest/doctest.h>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "process_census.hpp"
#include "program.hpp"
#include "temporary_directory.hpp"

namespace support {

class [[nodiscard]] scene {
 public:
  /// Copies `executables` too, and lets every user run them.
  explicit scene(std::vector<std::string> executables = {}) {
    directory_.open_to_all();
    executables.push_back(INSTANCE_GUARD_TEST_HELPER);
    for (const std::string& each : executables) std::filesystem::copy_file(each, path_of(each));
  }
  scene(const scene&) = delete;
  scene& operator=(const scene&) = delete;

  /// Fails the test if a process is left, and ends it. Those whose owner was killed just now are
  /// given the time that their warden takes; a test that promises more than that checks itself.
  ~scene() {
    wait_until([&] { return empty(); });
    for (const found_process& each : processes()) FAIL_CHECK("left behind: " << each.what);
    end();
  }

  std::string operator/(const std::string& name) const { return directory_ / name; }

  /// The copy of one of the executables.
  std::string path_of(const std::string& executable) const {
    return directory_ / std::filesystem::path(executable).filename().string();
  }
  std::string helper() const { return path_of(INSTANCE_GUARD_TEST_HELPER); }
  /// The helper's command line: scene.words({"setsid", "sleep"}).
  std::vector<std::string> words(std::vector<std::string> list) const {
    list.insert(list.begin(), helper());
    return list;
  }

  /// What marks a process as this scene's.
  std::string mark() const { return "INSTANCE_GUARD_TEST=" + directory_.path().string(); }

  program start(std::vector<std::string> arguments, start_options options = {}) const {
    options.environment.push_back(mark());
    return program(std::move(arguments), std::move(options));
  }

  /// Those that live now. Those of other users only if the test may see them.
  std::vector<found_process> processes() const { return processes_with(directory_.path().string()); }
  bool empty() const { return processes().empty(); }
  void end() const { end_processes_with(directory_.path().string()); }

 private:
  temporary_directory directory_;
};

/// A stranger of the same user who must survive whatever the test does.
class [[nodiscard]] canary {
 public:
  canary() : process_(scene_.start(scene_.words({"sleep"}))) { process_.read_until("ready"); }
  ~canary() {
    CHECK_MESSAGE(alive(), "an innocent process was ended");
    process_.signal(SIGKILL);
    process_.wait();
  }
  bool alive() { return !process_.ended(); }
  pid_t pid() const { return process_.pid(); }

 private:
  scene scene_;
  program process_;
};

}  // namespace support
