#include <instance_guard/file_descriptor.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <fcntl.h>
#include <ostream>
#include <type_traits>
#include <unistd.h>
#include <utility>

using instance_guard::file_descriptor;

namespace {
bool is_open(int descriptor) { return ::fcntl(descriptor, F_GETFD) >= 0; }
int open_something() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
}  // namespace

TEST_CASE("a descriptor is closed once, by its last owner") {
  static_assert(!std::is_copy_constructible_v<file_descriptor>);
  static_assert(std::is_nothrow_move_constructible_v<file_descriptor>);
  static_assert(std::is_nothrow_move_assignable_v<file_descriptor>);
  const int number = open_something();
  {
    file_descriptor first(number);
    file_descriptor second(std::move(first));
    CHECK_FALSE(first);
    CHECK(second.get() == number);
    first = std::move(second);
    CHECK(first.get() == number);
    CHECK(is_open(number));
  }
  CHECK_FALSE(is_open(number));
}

TEST_CASE("moving a descriptor onto itself keeps it") {
  file_descriptor one(open_something());
  file_descriptor& same = one;
  one = std::move(same);
  CHECK(one);
  CHECK(is_open(one.get()));
}

TEST_CASE("reset closes the old one, release keeps it open") {
  const int number = open_something();
  file_descriptor one(number);
  one.reset();
  CHECK_FALSE(is_open(number));
  CHECK(one.get() == -1);
  one.reset(open_something());
  const int released = one.release();
  CHECK_FALSE(one);
  CHECK(is_open(released));
  ::close(released);
}

TEST_CASE("a negative number is no descriptor") {
  CHECK(file_descriptor(-7).get() == -1);
  CHECK_FALSE(file_descriptor());
}

TEST_CASE("closing leaves errno alone") {
  file_descriptor bad(900);  // not open: close fails
  errno = ENOENT;
  bad.reset();
  CHECK(errno == ENOENT);
}

TEST_CASE("swapped descriptors change owners") {
  file_descriptor a(open_something()), b;
  const int number = a.get();
  swap(a, b);
  CHECK_FALSE(a);
  CHECK(b.get() == number);
}

TEST_CASE("a duplicate is never a standard stream and never survives exec") {
  std::error_code ec;
  const file_descriptor copy = instance_guard::duplicate(0, ec);
  CHECK_FALSE(ec);
  CHECK(copy.get() > 2);
  CHECK((::fcntl(copy.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK_FALSE(instance_guard::duplicate(900, ec));
  CHECK(ec == std::errc::bad_file_descriptor);
}
