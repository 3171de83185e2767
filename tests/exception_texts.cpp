// What the exceptions of the throwing forms say: which path, who holds it, what helps; each once.
#include <doctest/doctest.h>

#include <fstream>
#include <instance_guard/instance_guard.hpp>
#include <string>
#include <system_error>

#include "support/temporary_directory.hpp"
#include "support/unique_name.hpp"

using namespace instance_guard;
using namespace std::chrono_literals;

namespace {

template <class Call>
std::string thrown_by(Call call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool says(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

/// The message of the code stands at the end, and nowhere else.
bool says_once(const std::string& text, std::error_code why) {
  const std::size_t at = text.find(why.message());
  return at != std::string::npos && at + why.message().size() == text.size() && says(text, ": " + why.message());
}

}  // namespace

TEST_CASE("a refusal says once that the name is taken, by whom, and that it is this process") {
  const std::string name = support::unique_name("text");
  single_instance guard = single_instance::acquire(name);
  const std::string expected = name + ": held by this process: already running";
  CHECK(thrown_by([&] { (void)single_instance::acquire(name); }) == expected);
  CHECK(thrown_by([&] { guard.also_hold(name); }) == expected);
  CHECK(thrown_by([&] { (void)pid_lockfile(name); }) == expected);
}

TEST_CASE("a name outside the rule is shown, with the rule once") {
  const std::string expected = "\"a?b\" is no name for a lock: " + make_error_code(errc::invalid_name).message();
  CHECK(thrown_by([] { (void)single_instance::acquire("a b"); }) == expected);
  CHECK(thrown_by([] { (void)pid_lockfile("a b"); }) == expected);
  CHECK(thrown_by([] { (void)query_lock("a b"); }) == expected);
  CHECK(says(thrown_by([] { (void)query_lock(""); }), "\"\" is no name"));
}

TEST_CASE("a directory that will not do is named with its cure, also when it was only asked about") {
  const support::temporary_directory place;
  lock_options options;
  options.directory = place / "file";
  std::ofstream(place / "file") << "mine";
  const std::string expected = place / "file" + " is no directory (cure: ";
  CHECK(thrown_by([&] { (void)single_instance::acquire("x", {.lock = options}); }).starts_with(expected));
  CHECK(thrown_by([&] { (void)pid_lockfile("x", options); }).starts_with(expected));
  CHECK(thrown_by([&] { (void)query_lock("x", options); }).starts_with(expected));
  CHECK(thrown_by([&] { (void)list_locks(options); }).starts_with(expected));
  options.directory = place / "none" + "/a";
  const std::string missing = thrown_by([&] { (void)single_instance::acquire("x", {.lock = options}); });
  CHECK(missing.starts_with(options.directory.string() + " cannot be made (cure: "));
  CHECK(says_once(missing, std::make_error_code(std::errc::no_such_file_or_directory)));
}

TEST_CASE("a program that does not start is named with every path that it was to have") {
  process_group group({.grace = 0ms});
  CHECK(thrown_by([&] { (void)group.spawn({"no-such-program"}); }).starts_with("no-such-program: "));
  CHECK(thrown_by([&] {
          (void)group.spawn({"true"}, {.working_directory = "/no/such/place"});
        }).starts_with("true (in /no/such/place): "));
  CHECK(thrown_by([&] {
          (void)group.run({"true"}, {.process = {.in = stdio::file("/no/input", file_mode::read),
                                                 .out = stdio::file("/no/output", file_mode::append),
                                                 .err = stdio::file("/no/errors", file_mode::write)}});
        }).starts_with("true (stdin from /no/input, stdout to /no/output, stderr to /no/errors): "));
  CHECK(thrown_by([&] { (void)group.spawn({}); }).starts_with("no program to start: "));
  CHECK(thrown_by([&] { (void)group.spawn({""}); }).starts_with("\"\": "));
}

TEST_CASE("what holds nothing says so") {
  pid_lockfile nothing;
  process_group group({.grace = 0ms});
  CHECK(thrown_by([&] { nothing.verify(); }).starts_with("no lock: "));
  CHECK(thrown_by([&] { group.keep_locked(nothing); }).starts_with("no lock: "));
  CHECK(thrown_by([] { single_instance().verify(); }).starts_with("no guard: "));
}
