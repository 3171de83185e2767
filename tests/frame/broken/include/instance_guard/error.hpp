// layer 1: includes a higher one
#include "detail/upper.hpp"
