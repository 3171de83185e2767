# Lists a header that is gone, and not error.hpp.
set(instance_guard_headers
  include/instance_guard/detail/silent.hpp
  include/instance_guard/detail/upper.hpp
  include/instance_guard/gone.hpp
  include/instance_guard/instance_guard.hpp
  include/instance_guard/pid_lockfile.hpp
)
