#include <doctest/doctest.h>

#include <instance_guard/version.hpp>

TEST_CASE("the version is one number that grows with each release") {
  static_assert(instance_guard::version == INSTANCE_GUARD_VERSION_MAJOR * 10000 + INSTANCE_GUARD_VERSION_MINOR * 100 +
                                               INSTANCE_GUARD_VERSION_PATCH);
  CHECK(INSTANCE_GUARD_VERSION_MINOR < 100);
  CHECK(INSTANCE_GUARD_VERSION_PATCH < 100);
}
