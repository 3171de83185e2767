// All that a warden ever runs: system calls only, nothing of libc.
#include <instance_guard/detail/warden_loop.hpp>
#include <instance_guard/detail/warden_start.hpp>

void (*life_of_a_warden)(void*) = &instance_guard::detail::warden_main;
