#include "every_header.hpp"

const int* version_in_the_second_unit();

int main() {
  // One inline variable in both: the same object.
  return version_in_the_second_unit() == &instance_guard::version ? 0 : 1;
}
