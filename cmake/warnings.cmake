# Warnings are for our own executables; a user's build never sees them.
# `cmake --compile-no-warning-as-error` lets them pass.

function(instance_guard_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON)
endfunction()
