// The processes of the incident: the bot, the test runners it starts, and a terminal.
#pragma once

#include <string>
#include <vector>

namespace demo {

/// Every actor ends by itself after this, whatever goes wrong around it.
inline constexpr unsigned actor_cap_seconds = 30;

/// `bot STAGE NAME WALLET guarded|alone|bare`: trades until it is killed. With a guard it holds
/// NAME and WALLET. Starts one test runner through the guard, and one that a library starts
/// behind its back (`alone` starts none). Says `trading pid=P at=NANOSECONDS`.
int bot(const std::vector<std::string>& arguments);

/// `runner STAGE KIND`: a test run that daemonizes, ignores SIGTERM, and stamps the time into
/// STAGE/KIND.stamp every millisecond.
int runner(const std::vector<std::string>& arguments);

/// `terminal PROGRAM …`: runs a program on a terminal of its own and copies what it shows.
int terminal(const std::vector<std::string>& arguments);

/// How this program can start itself.
std::string own_path();

/// CLOCK_MONOTONIC, nanoseconds: the same for all processes of a host.
long long now();

}  // namespace demo
