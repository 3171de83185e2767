// The system calls of the warden and of a child before its exec: not even errno is touched.
#include <instance_guard/platform/linux_calls.hpp>

namespace sys = instance_guard::platform::sys;

[[noreturn]] void calls_of_a_warden(const char* path, char* const* arguments, msghdr* message) {
  sys::signal_bits old = 0;
  sys::set_signal_mask(sys::all_signals, &old);
  sys::setsid();
  sys::chdir("/");
  int ends[2] = {-1, -1};
  sys::socketpair_seqpacket(ends);
  sys::recvmsg(ends[0], message, 0);
  sys::sendmsg(ends[1], message, 0);
  pollfd entry{ends[0], POLLIN, 0};
  sys::ppoll(&entry, 1, sys::monotonic_now(), &old);
  siginfo_t info{};
  sys::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT);
  sys::kill(info.si_pid, SIGKILL);
  sys::close_range(3, ~0u);
  sys::execve(path, arguments, arguments);
  sys::exit_group(127);
}
