# Every header, in alphabetical order; a test compares this list with the tree.

set(instance_guard_headers
  include/instance_guard/detail/age_text.hpp
  include/instance_guard/detail/deadline.hpp
  include/instance_guard/detail/environment.hpp
  include/instance_guard/detail/exit_path.hpp
  include/instance_guard/detail/printable_text.hpp
  include/instance_guard/detail/refusal_text.hpp
  include/instance_guard/detail/run_capture.hpp
  include/instance_guard/detail/signal_name.hpp
  include/instance_guard/detail/stop_state.hpp
  include/instance_guard/error.hpp
  include/instance_guard/file_descriptor.hpp
  include/instance_guard/platform/platform.hpp
  include/instance_guard/process_group_types.hpp
  include/instance_guard/process_identity.hpp
  include/instance_guard/signal_cleanup.hpp
  include/instance_guard/single_instance.hpp
  include/instance_guard/version.hpp
)

# Compiled and checked on that system only, installed everywhere.
set(instance_guard_headers_linux
  include/instance_guard/platform/linux.hpp
  include/instance_guard/platform/linux_calls.hpp
  include/instance_guard/platform/linux_lock.hpp
  include/instance_guard/platform/linux_proc.hpp
  include/instance_guard/platform/linux_syscall.hpp
)
set(instance_guard_headers_darwin
)
