// What runs in a signal handler: the end of the children and of the locks.
#include <instance_guard/detail/exit_path.hpp>

void (*handler_of_signals)(int) = &instance_guard::detail::on_signal;
