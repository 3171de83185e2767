// layer 6: forgets error.hpp
#include "pid_lockfile.hpp"
