// What counts as a mark in an environment and among mappings; any bytes may be there.
#include <cstring>
#include <doctest/doctest.h>
#include <instance_guard/detail/stray_evidence.hpp>
#include <instance_guard/detail/stray_scan.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "support/program.hpp"
#include "support/scene.hpp"

namespace ig = instance_guard::detail;
namespace platform = instance_guard::platform;
using namespace std::string_literals;

namespace {

const std::string ours(32, 'a');
const std::string enclosing(32, 'b');
const std::string others(32, 'c');

ig::stray_target target() {
  ig::stray_target result;
  std::memcpy(result.nonce, ours.c_str(), 33);
  std::memcpy(result.enclosing[0], enclosing.c_str(), 33);
  return result;
}

std::string show(const ig::stray_evidence& found) {
  return (found.ours ? "ours "s : ""s) + (found.other ? "other " : "") + (found.keep ? "keep " : "");
}

std::string in_entry(std::string_view entry) {
  ig::stray_evidence found;
  ig::look_at_environment_entry(entry.data(), entry.size(), target(), found);
  return show(found);
}

std::string in_mapping(std::string_view path, std::uint64_t inode = 7) {
  ig::stray_evidence found;
  ig::stray_target wanted = target();
  wanted.page_device = 1;
  wanted.page_inode = 7;
  platform::mapped_file file;
  file.device = 1;
  file.inode = inode;
  file.path = path.data();
  file.path_size = path.size();
  ig::look_at_mapped_file(file, wanted, found);
  return show(found);
}

/// What look_for_marks finds in a process; "error N" if it can't be read.
std::string in_process(pid_t pid) {
  platform::process_view view;
  if (platform::open_process(pid, view) != 0) return "gone";
  ig::stray_evidence found;
  char text[256];  // small, so that everything crosses its end
  const int result = ig::look_for_marks(view, target(), text, sizeof text, found);
  platform::close_process(view);
  return result == 0 ? show(found) : "error " + std::to_string(-result);
}

std::string with_environment(const support::scene& scene, std::vector<std::string> environment) {
  const std::string path = scene.helper();
  support::program process({path, "sleep"}, {.before_exec = [&] {
                             std::vector<char*> list;
                             for (auto& each : environment) list.push_back(each.data());
                             list.push_back(nullptr);
                             const char* arguments[] = {"helper", "sleep", nullptr};
                             ::execve(path.c_str(), const_cast<char**>(arguments), list.data());
                             return false;
                           }});
  REQUIRE(process.read_until("ready"));
  return in_process(process.pid());
}

}  // namespace

TEST_CASE("an entry is the mark only if it is the whole entry") {
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + ours) == "ours ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + enclosing) == "");
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + others) == "other ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + ours + "a") == "other ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + ours.substr(1)) == "other ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=" + std::string(32, 'A')) == "other ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=garbage") == "other ");
  CHECK(in_entry("INSTANCE_GUARD_MARK=") == "");
  CHECK(in_entry("INSTANCE_GUARD_MARK") == "");
  CHECK(in_entry("INSTANCE_GUARD_MARKS=" + ours) == "");
  CHECK(in_entry("XINSTANCE_GUARD_MARK=" + ours) == "");
  CHECK(in_entry("A=INSTANCE_GUARD_MARK=" + ours) == "");
  CHECK(in_entry("instance_guard_mark=" + ours) == "");
  CHECK(in_entry("") == "");
  CHECK(in_entry("INSTANCE_GUARD_KEEP=1") == "keep ");
  for (const char* no : {"INSTANCE_GUARD_KEEP=", "INSTANCE_GUARD_KEEP=0", "INSTANCE_GUARD_KEEP=11",
                         "INSTANCE_GUARD_KEEP", "INSTANCE_GUARD_KEEP=true", "XINSTANCE_GUARD_KEEP=1"})
    CHECK(in_entry(no) == "");
}

TEST_CASE("a mapping is the mark page only with its name, device and inode") {
  CHECK(in_mapping("/memfd:instance_guard:" + ours + " (deleted)") == "ours ");
  CHECK(in_mapping("/memfd:instance_guard:" + ours) == "ours ");
  CHECK(in_mapping("/memfd:instance_guard:" + ours + " (deleted)", 8) == "");
  CHECK(in_mapping("/memfd:instance_guard:" + enclosing + " (deleted)") == "");
  CHECK(in_mapping("/memfd:instance_guard:" + others + " (deleted)", 9) == "other ");
  CHECK(in_mapping("/memfd:instance_guard:x (deleted)", 9) == "other ");
  CHECK(in_mapping("/memfd:instance_guard: (deleted)") == "");
  CHECK(in_mapping("/memfd:instance_guard") == "");
  CHECK(in_mapping("/memfd:") == "");
  CHECK(in_mapping("/tmp/memfd:instance_guard:" + ours) == "");
  CHECK(in_mapping("/memfd:other (deleted)") == "");
  CHECK(in_mapping("/") == "");
}

TEST_CASE("a mark is found wherever it stands in an environment of any size") {
  support::scene scene;
  const std::string mark = "INSTANCE_GUARD_MARK=" + ours;
  CHECK(with_environment(scene, {mark}) == "ours ");
  CHECK(with_environment(scene, {"A=1", mark, "B=2"}) == "ours ");
  CHECK(with_environment(scene, {}) == "");
  CHECK(with_environment(scene, {""}) == "");
  CHECK(with_environment(scene, {"A=" + std::string(100'000, 'x'), mark, "INSTANCE_GUARD_KEEP=1"}) == "ours keep ");
  CHECK(with_environment(scene, {mark, "INSTANCE_GUARD_MARK=" + others}) == "ours other ");
  std::vector<std::string> much(10, "B=" + std::string(120'000, 'y'));
  much.push_back(mark);
  CHECK(with_environment(scene, much) == "ours ");
  // Each alignment of the mark against the end of the buffer.
  for (std::size_t shift = 195; shift < 256; ++shift)
    CHECK(with_environment(scene, {"A=" + std::string(shift, 'x'), mark, "B="}) == "ours ");
}

TEST_CASE("a process may write anything into the memory of its environment") {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    // One that has no end: no NUL at all, all through.
    char text[1024];
    const long size = platform::read_small_file("/proc/self/stat", text, sizeof text);
    const char* at = std::strrchr(text, ')');
    unsigned long bound[2] = {};
    int field = 2;
    for (; size > 0 && at != nullptr && field < 51; ++field) {
      at = std::strchr(at + 1, ' ');
      if (at != nullptr && field + 1 >= 50) bound[field + 1 - 50] = std::strtoul(at, nullptr, 10);
    }
    for (unsigned long i = bound[0]; i < bound[1]; ++i)
      *reinterpret_cast<volatile char*>(i) = "INSTANCE_GUARD_MARK=aaaaaaaaaaaaaaaa"[(i - bound[0]) % 36];
    [[maybe_unused]] const ssize_t told = ::write(ready[1], "r", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  CHECK(::read(ready[0], &byte, 1) == 1);
  CHECK(in_process(child) == "other ");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(in_process(child) == "gone");
}

TEST_CASE("a process with many thousand mappings is read to its end") {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    for (int i = 0; i < 20'000; ++i) {
      void* page = ::mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (page == MAP_FAILED) break;
      ::mprotect(page, 4096, PROT_NONE);
    }
    platform::mark_page page;
    if (platform::make_mark_page(("instance_guard:" + ours).c_str(), page) != 0) ::_exit(1);
    [[maybe_unused]] const ssize_t told = ::write(ready[1], "r", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  CHECK(::read(ready[0], &byte, 1) == 1);
  CHECK(in_process(child) == "ours ");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("a process that may not be read is an error, not a guess") {
  support::scene scene;
  support::program process =
      scene.start(scene.words({"undumpable", "sleep"}), {.environment = {"INSTANCE_GUARD_MARK=" + ours}});
  REQUIRE(process.read_until("ready"));
  const std::string found = in_process(process.pid());
  if (::geteuid() == 0) CHECK(found == "ours ");
  else CHECK(found.starts_with("error"));
}

TEST_CASE("a look at all processes waits for those that execute a program just then, and is not repeated for them") {
  const support::scene scene;
  platform::process_stat own;
  REQUIRE(platform::read_process_stat(::getpid(), own) == 0);
  std::vector<support::program> busy;
  const std::string again = "ulimit -t 60 && exec /bin/sh -c \"$0\" \"$0\"";
  for (int i = 0; i < 12; ++i) busy.push_back(scene.start({"/bin/sh", "-c", again, again}));
  ig::stray_target wanted = target();
  wanted.owner = ::getpid();
  wanted.owner_start = wanted.acquired = own.start_time;
  wanted.user = ::geteuid();
  const auto memory = std::make_unique<ig::stray_buffers>();
  // What others start on this machine meanwhile can spoil a look as well, but not each time.
  const auto all_conclusive = [&] {
    for (int i = 0; i < 10; ++i) {
      const auto report = std::make_unique<ig::stray_report>();
      ig::stray_look look(wanted, 0, *memory, *report);
      CHECK(look.run() == 0);
      if (!report->conclusive) return false;
    }
    return true;
  };
  CHECK((all_conclusive() || all_conclusive() || all_conclusive()));
}
