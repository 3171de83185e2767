// A child between clone and exec: it shares memory with its warden, and touches none of libc's.
#include <instance_guard/detail/child_start.hpp>

void (*life_of_a_child_before_exec)(void*) = &instance_guard::detail::child_main;
