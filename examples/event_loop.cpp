// Everything is a descriptor: output, end of a child, request to stop. One poll for all of them;
// epoll or Asio take the same descriptors.
#include <instance_guard/single_instance.hpp>

#include <cstdio>
#include <poll.h>
#include <unistd.h>

using namespace instance_guard;
using namespace std::chrono_literals;

int main() {
  auto guard =
      single_instance::acquire_or_exit("example-event-loop", {.lock = {.wait = 5s}, .signals = {.graceful = true}});

  child worker =
      guard.spawn({"sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.02; done; exit 3"}, {.out = stdio::pipe()});
  bool running = true;
  while (running || worker.out()) {
    // A negative descriptor is left out of poll.
    pollfd events[] = {
        {guard.stop_fd(), POLLIN, 0}, {worker.out().get(), POLLIN, 0}, {running ? worker.exit_fd() : -1, POLLIN, 0}};
    if (::poll(events, 3, -1) < 0) continue;  // a signal

    if (events[0].revents != 0) break;
    if (events[1].revents != 0) {
      char block[4096];
      const auto size = ::read(worker.out().get(), block, sizeof block);
      if (size > 0) std::printf("worker says: %.*s", static_cast<int>(size), block);
      else worker.out().reset();  // its end
    }
    if (events[2].revents != 0) {
      std::printf("worker ended: %s\n", worker.wait().str().c_str());
      running = false;
    }
  }
  return worker.wait().code() == 3 ? 0 : 1;
}
