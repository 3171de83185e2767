# Warnings are for our own executables; a user's build never sees them.
# `cmake --compile-no-warning-as-error` lets them pass.

function(instance_guard_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
  # GCC 12 warns of the standard library's own code once it optimizes or a sanitizer has rewritten it.
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR
     (CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize"))
    set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON)
  endif()
endfunction()
