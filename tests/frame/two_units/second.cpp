#include "every_header.hpp"

const int* version_in_the_second_unit() { return &instance_guard::version; }
