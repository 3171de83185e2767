// Without exceptions and RTTI: every call takes a std::error_code and never throws.
//
// Compiled with -fno-exceptions -fno-rtti.
#include <instance_guard/single_instance.hpp>

#include <cstdio>
#include <system_error>

using namespace instance_guard;
using namespace std::chrono_literals;

int main() {
  std::error_code ec;
  auto guard = single_instance::acquire("example-no-exceptions", {.lock = {.wait = 5s}}, ec);
  if (ec == std::errc::device_or_resource_busy) {
    if (const auto& holder = guard.holder())
      std::fprintf(stderr, "pid %d has the name, %s\n", static_cast<int>(holder->process.pid),
                   holder->started_from.c_str());
    return 75;
  }
  if (ec) {
    std::fprintf(stderr, "%s\n", ec.message().c_str());
    return 73;
  }

  // A second acquisition in one process is refused as well.
  auto again = single_instance::acquire("example-no-exceptions", ec);
  std::printf("again: %s\n", ec.message().c_str());
  if (ec != errc::already_running || again) return 1;

  child missing = guard.spawn({"/no/such/program"}, ec);
  std::printf("missing program: %s\n", ec.message().c_str());
  if (ec != std::errc::no_such_file_or_directory || missing) return 1;

  const run_result result = guard.run({"echo", "hello"}, {.timeout = 10s}, ec);
  std::printf("%s%s\n", result.out.c_str(), result.status.str().c_str());
  if (ec || !result.status.success()) return 1;

  guard.verify(ec);
  return ec ? 1 : 0;
}
