// A bot that must exist once, on a wallet that must have one bot, whatever the bot is called.
//
// Before each order it asks whether it still is the one: somebody may have deleted the lock
// file, or killed the warden. The wallet's name is known only after the configuration is read.
#include <instance_guard/single_instance.hpp>

#include <chrono>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

namespace {

std::string wallet_from_configuration() { return "0x39A1525f"; }

void place_order(int number) { std::printf("order %d placed\n", number); }

}  // namespace

int main() {
  auto guard = instance_guard::single_instance::acquire_or_exit(
      "example-shiva", {.lock = {.wait = 5s, .version = "1.5.0"}, .signals = {.graceful = true}});

  if (const auto& last = guard.recovered_from())
    std::printf("pid %d did not end cleanly; check its open orders first\n", static_cast<int>(last->process.pid));

  // Refused if any other program, by whatever name, has this wallet: names are folded to lower
  // case, so it does not matter how somebody writes the address.
  try {
    guard.also_hold("example-wallet-" + wallet_from_configuration(), {.wait = 5s});
  } catch (const instance_guard::already_running& refused) {
    std::fprintf(stderr, "the wallet is in use: %s\n", refused.what());
    return 75;
  }

  for (int order = 1; order <= 3 && !guard.wait_for_stop(20ms); ++order) {
    guard.verify();  // throws lock_lost or warden_lost: better no order than two
    place_order(order);
  }
}
