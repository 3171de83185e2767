// The look for strays, as it runs in the warden.
#include <instance_guard/detail/stray_mark.hpp>
#include <instance_guard/detail/stray_scan.hpp>

int looks_of_a_warden(const instance_guard::detail::stray_target& target, instance_guard::detail::stray_buffers& memory,
                      instance_guard::detail::stray_report& report) {
  instance_guard::detail::forget_marks_in_copy();
  return instance_guard::detail::strays_signal(target, SIGKILL, memory, report);
}
