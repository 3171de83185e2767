#include <instance_guard/version.hpp>

#include <cstdio>

int main() {
  std::printf("%d.%d.%d\n", INSTANCE_GUARD_VERSION_MAJOR, INSTANCE_GUARD_VERSION_MINOR, INSTANCE_GUARD_VERSION_PATCH);
}
