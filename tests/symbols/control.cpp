// Allocates, which no signal handler may: the check must refuse this file.
#include <cstdlib>

void* allocate_in_a_signal_handler() { return std::malloc(1); }
