#include <instance_guard/detail/environment.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>
#include <string_view>

using instance_guard::detail::environment;
using namespace std::string_literals;

namespace {
environment of_caller() {
  static const char* const list[] = {"HOME=/root", "PATH=/bin", "EMPTY=", "ODD", nullptr};
  environment result;
  result.inherit(list);
  return result;
}
}  // namespace

TEST_CASE("what is not changed stays, in order") {
  const environment all = of_caller();
  CHECK(all.size() == 4);
  CHECK(all.bytes() == "HOME=/root\0PATH=/bin\0EMPTY=\0ODD\0"s);
  environment none;
  none.inherit(nullptr);
  CHECK(none.bytes().empty());
}

TEST_CASE("a name is set once, and the last one counts") {
  environment all = of_caller();
  CHECK_FALSE(all.change("PATH=/usr/bin"));
  CHECK_FALSE(all.change("NEW=1"));
  CHECK_FALSE(all.change("NEW=2"));
  CHECK(all.bytes() == "HOME=/root\0EMPTY=\0ODD\0PATH=/usr/bin\0NEW=2\0"s);
}

TEST_CASE("doubles in the caller's environment go with their name") {
  static const char* const list[] = {"A=1", "B=1", "A=2", nullptr};
  environment all;
  all.inherit(list);
  CHECK_FALSE(all.change("A=3"));
  CHECK(all.bytes() == "B=1\0A=3\0"s);
}

TEST_CASE("a name alone removes") {
  environment all = of_caller();
  CHECK_FALSE(all.change("PATH"));
  CHECK_FALSE(all.change("ODD"));
  CHECK_FALSE(all.change("NOT_THERE"));
  CHECK_FALSE(all.change("HOM"));  // only the whole name
  CHECK(all.bytes() == "HOME=/root\0EMPTY=\0"s);
}

TEST_CASE("a value may be empty and may contain =") {
  environment all;
  CHECK_FALSE(all.change("A="));
  CHECK_FALSE(all.change("B=c=d"));
  CHECK(all.bytes() == "A=\0B=c=d\0"s);
}

TEST_CASE("what no environment can hold is refused and changes nothing") {
  environment all = of_caller();
  for (const std::string& bad : {""s, "=x"s, "="s, "A\0=1"s, "A=1\0B=2"s, "\0"s})
    CHECK(all.change(bad) == std::errc::invalid_argument);
  CHECK(all.bytes() == of_caller().bytes());
}
