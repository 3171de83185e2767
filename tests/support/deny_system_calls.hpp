// A kernel that refuses a system call, as an old one or a container's filter does (seccomp(2)).
#pragma once

#include <cstddef>
#include <initializer_list>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace support {

namespace detail {

inline bool install(std::vector<sock_filter> filter) {
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  const auto attempt = [&] { return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0; };
  // root needs no no_new_privs; other users do.
  return attempt() || (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && attempt());
}

inline constexpr sock_filter load(std::size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset));
}
inline constexpr sock_filter answer(unsigned value) { return BPF_STMT(BPF_RET | BPF_K, value); }
/// Goes on if equal, else skips `otherwise` statements.
inline constexpr sock_filter if_equal(unsigned value, unsigned char otherwise) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise);
}

}  // namespace detail

/// From now on these calls fail with `error`, here and in all that is started from here, for
/// good: call it in a forked child. False if there is no seccomp.
inline bool deny_system_calls(std::initializer_list<long> numbers, int error) {
  std::vector<sock_filter> filter = {detail::load(offsetof(seccomp_data, nr))};
  for (const long number : numbers) {
    filter.push_back(detail::if_equal(static_cast<unsigned>(number), 1));
    filter.push_back(detail::answer(SECCOMP_RET_ERRNO | static_cast<unsigned>(error)));
  }
  filter.push_back(detail::answer(SECCOMP_RET_ALLOW));
  return detail::install(std::move(filter));
}

/// As above, for one call with one value of its first argument, or a later one: prctl(PR_SET_CHILD_SUBREAPER).
inline bool deny_system_call_with(long number, unsigned value, int error, std::size_t argument = 0) {
  return detail::install({detail::load(offsetof(seccomp_data, nr)), detail::if_equal(static_cast<unsigned>(number), 3),
                          detail::load(offsetof(seccomp_data, args) + argument * sizeof(__u64)),
                          detail::if_equal(value, 1), detail::answer(SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
                          detail::answer(SECCOMP_RET_ALLOW)});
}

}  // namespace support
