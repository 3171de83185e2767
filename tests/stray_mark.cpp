// The mark of an acquisition: what of it there is, in whom, and until when.
#include <algorithm>
#include <doctest/doctest.h>
#include <instance_guard/detail/stray_mark.hpp>
#include <semaphore>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "support/open_descriptors.hpp"
#include "support/process_census.hpp"

namespace ig = instance_guard::detail;
namespace platform = instance_guard::platform;

namespace {

std::string variable() {
  const char* value = std::getenv(ig::mark_variable);
  return value == nullptr ? "(none)" : value;
}

ig::stray_mark make() {
  std::error_code ec;
  ig::stray_mark mark = ig::make_stray_mark(ec);
  REQUIRE_FALSE(ec);
  return mark;
}

/// As /proc shows the caller's mappings: how often the page with this nonce is there.
int pages_with(const std::string& nonce) {
  const std::string maps = support::detail::contents("/proc/self/maps");
  int count = 0;
  for (std::size_t at = 0; (at = maps.find("/memfd:instance_guard:" + nonce, at)) != maps.npos; ++at) ++count;
  return count;
}

/// In a forked child; true if it returns true.
template <class Act>
bool in_child(Act act) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(act() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0;
}

/// A sanitizer's own thread counts as one: then the environment is never touched.
const auto needs_one_thread = doctest::skip(platform::threads_are_checked);

/// A second thread for as long as the object lives.
class other_thread {
 public:
  other_thread() : thread_([this] { end_.acquire(); }) {}
  ~other_thread() {
    end_.release();
    thread_.join();
    // The kernel's count of threads falls a moment after the join.
    while (!platform::has_one_thread()) ::usleep(100);
  }

 private:
  std::binary_semaphore end_{0};
  std::thread thread_;
};

}  // namespace

TEST_CASE("a mark is in the environment and among the mappings until it is removed") {
  ::unsetenv(ig::mark_variable);
  const int descriptors = support::open_descriptors();
  ig::stray_mark mark = make();
  CHECK(mark.env_set);
  CHECK(mark.inode != 0);
  CHECK(std::string(mark.nonce).size() == 32);
  CHECK(std::string(mark.nonce).find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(variable() == mark.nonce);
  CHECK(ig::mark_entry(mark) == "INSTANCE_GUARD_MARK=" + std::string(mark.nonce));
  CHECK(pages_with(mark.nonce) == 1);
  CHECK(support::open_descriptors() == descriptors);
  const std::string nonce = mark.nonce;
  ig::remove_stray_mark(mark);
  CHECK_FALSE(mark);
  CHECK(variable() == "(none)");
  CHECK(pages_with(nonce) == 0);
  ig::remove_stray_mark(mark);  // a second time does nothing
  CHECK(variable() == "(none)");
}

TEST_CASE("each mark is another one") {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    ig::stray_mark mark = make();
    CHECK(seen.insert(mark.nonce).second);
    ig::remove_stray_mark(mark);
  }
  CHECK(pages_with("") == 0);
}

TEST_CASE("the page has the device and the inode that the mark says, and nobody can write to it") {
  ig::stray_mark mark = make();
  struct context {
    const ig::stray_mark& mark;
    int found = 0;
  } here{mark};
  platform::process_view self;
  REQUIRE(platform::open_process(::getpid(), self) == 0);
  char text[4096];
  CHECK(platform::view_mapped_files(
            self, text, sizeof text,
            [](const platform::mapped_file& file, void* to) {
              auto* into = static_cast<context*>(to);
              const std::string path(file.path, file.path_size);
              if (path.find(into->mark.nonce) != path.npos && file.device == into->mark.device &&
                  file.inode == into->mark.inode)
                ++into->found;
              return true;
            },
            &here) == 0);
  platform::close_process(self);
  CHECK(here.found == 1);
  const std::string maps = support::detail::contents("/proc/self/maps");
  const std::size_t at = maps.find(mark.nonce);
  const std::string line = maps.substr(maps.rfind('\n', at) + 1, at);
  CHECK(line.find(" ---s ") != line.npos);
  ig::remove_stray_mark(mark);
}

TEST_CASE("what was in the variable before comes back") {
  ::setenv(ig::mark_variable, "of-an-outer-guard", 1);
  ig::stray_mark mark = make();
  CHECK(variable() == mark.nonce);
  ig::remove_stray_mark(mark);
  CHECK(variable() == "of-an-outer-guard");
  ::unsetenv(ig::mark_variable);
}

TEST_CASE("guards of one program end in any order and leave the environment as it was") {
  ::setenv(ig::mark_variable, "outer", 1);
  std::vector<int> order = {0, 1, 2};
  do {
    ig::stray_mark marks[3] = {make(), make(), make()};
    CHECK(variable() == marks[2].nonce);
    for (const int i : order) {
      ig::remove_stray_mark(marks[i]);
      int newest = 2;
      while (newest >= 0 && !marks[newest]) --newest;
      CHECK(variable() == (newest < 0 ? "outer" : std::string(marks[newest].nonce)));
    }
  } while (std::next_permutation(order.begin(), order.end()));
  ::unsetenv(ig::mark_variable);
}

TEST_CASE("a program that changed the variable itself keeps its value") {
  ig::stray_mark mark = make();
  ::setenv(ig::mark_variable, "mine", 1);
  ig::remove_stray_mark(mark);
  CHECK(variable() == "mine");
  ::unsetenv(ig::mark_variable);
}

TEST_CASE("beside another thread the environment is not touched" * needs_one_thread) {
  ::unsetenv(ig::mark_variable);
  {
    const other_thread beside;
    ig::stray_mark mark = make();
    CHECK_FALSE(mark.env_set);
    CHECK(variable() == "(none)");
    CHECK(pages_with(mark.nonce) == 1);
    ig::remove_stray_mark(mark);
    CHECK(variable() == "(none)");
  }
  ig::stray_mark mark = make();
  CHECK(mark.env_set);
  {
    const other_thread beside;
    const std::string nonce = mark.nonce;
    ig::remove_stray_mark(mark);
    CHECK(variable() == nonce);  // left behind: it can't be taken out now
    CHECK(pages_with(nonce) == 0);
    // The next acquisition can't replace it, and so has the same.
    ig::stray_mark next = make();
    CHECK(next.env_set);
    CHECK(std::string(next.nonce) == nonce);
    ig::remove_stray_mark(next);
  }
  ig::stray_mark later = make();
  CHECK(later.env_set);
  CHECK(variable() == later.nonce);
  ig::remove_stray_mark(later);
  ::unsetenv(ig::mark_variable);
}

TEST_CASE("a copy by fork has the page, and can't take the mark from its parent" * needs_one_thread) {
  ig::stray_mark mark = make();
  const std::string nonce = mark.nonce;
  CHECK(in_child([&] {
    if (pages_with(nonce) != 1) return false;
    ig::stray_mark copy = mark;
    ig::remove_stray_mark(copy);
    if (pages_with(nonce) != 1 || variable() != nonce) return false;
    // A guard of its own is inside its parent's.
    std::error_code ec;
    ig::stray_mark own = ig::make_stray_mark(ec);
    if (ec || std::string(own.nonce) == nonce || variable() != own.nonce) return false;
    const ig::stray_target target = ig::target_of(own);
    if (std::string(target.enclosing[0]) != nonce) return false;
    ig::remove_stray_mark(own);
    return variable() == nonce && pages_with(nonce) == 1;
  }));
  CHECK(pages_with(nonce) == 1);
  CHECK(variable() == nonce);
  ig::remove_stray_mark(mark);
}

TEST_CASE("a mark that is only given leaves no trace in the program") {
  ::unsetenv(ig::mark_variable);
  std::error_code ec;
  ig::stray_mark mark = ig::make_stray_mark(ec, true);
  REQUIRE(mark);
  CHECK_FALSE(mark.env_set);
  CHECK(variable() == "(none)");
  CHECK(pages_with("") == 0);
  CHECK(ig::mark_entry(mark) == "INSTANCE_GUARD_MARK=" + std::string(mark.nonce));
  CHECK(std::string(ig::target_of(mark).nonce) == mark.nonce);
  ig::remove_stray_mark(mark);
}

TEST_CASE("a warden's copy lets go of every page") {
  ig::stray_mark first = make(), second = make();
  CHECK(in_child([&] {
    ig::forget_marks_in_copy();
    return pages_with("") == 0;
  }));
  CHECK(pages_with("") == 2);
  ig::remove_stray_mark(second);
  ig::remove_stray_mark(first);
}

TEST_CASE("there are as many marks as slots, then an error, then again") {
  std::vector<ig::stray_mark> marks;
  for (int i = 0; i < ig::mark_table::size; ++i) marks.push_back(make());
  std::error_code ec;
  CHECK_FALSE(ig::make_stray_mark(ec));
  CHECK(ec == std::errc::no_buffer_space);
  for (auto& each : marks) ig::remove_stray_mark(each);
  ig::stray_mark mark = make();
  ig::remove_stray_mark(mark);
  CHECK(variable() == "(none)");
}

TEST_CASE("threads may make and remove marks at once") {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int round = 0; round < 200; ++round) {
        std::error_code ec;
        ig::stray_mark mark = ig::make_stray_mark(ec);
        if (ec || mark.env_set) ::abort();
        static_cast<void>(ig::target_of(mark));
        ig::remove_stray_mark(mark);
      }
    });
  for (auto& each : threads) each.join();
  CHECK(pages_with("") == 0);
}

TEST_CASE("what a guard looks for names its owner, its place, and the marks around it") {
  ig::stray_mark outer = make();
  ig::stray_mark mark = make();
  ig::stray_mark inner = make();
  const ig::stray_target target = ig::target_of(mark);
  CHECK(std::string(target.nonce) == mark.nonce);
  CHECK(target.owner == ::getpid());
  CHECK(target.owner_start != 0);
  CHECK(target.acquired >= target.owner_start);
  CHECK(target.user == ::geteuid());
  CHECK(target.pid_namespace != 0);
  CHECK(target.control_group_known);
  CHECK(target.program_inode != 0);
  CHECK(target.page_inode == mark.inode);
  CHECK(std::string(target.enclosing[0]) == outer.nonce);
  for (int i = 1; i < ig::stray_target::max_enclosing; ++i) CHECK(std::string(target.enclosing[i]) != inner.nonce);
  ig::remove_stray_mark(inner);
  ig::remove_stray_mark(mark);
  ig::remove_stray_mark(outer);
}
