# cmake -D ROOT=<project> -P check_headers.cmake
# cmake/headers.cmake lists exactly the headers that exist, and the umbrella includes every public one.

cmake_minimum_required(VERSION 3.25)

set(faults)
include(${ROOT}/cmake/headers.cmake)
set(listed ${instance_guard_headers} ${instance_guard_headers_linux} ${instance_guard_headers_darwin})
file(GLOB_RECURSE existing RELATIVE ${ROOT} ${ROOT}/include/*.hpp)
foreach(header IN LISTS existing)
  if(NOT header IN_LIST listed)
    list(APPEND faults "${header} is missing in cmake/headers.cmake")
  endif()
endforeach()
foreach(header IN LISTS listed)
  if(NOT header IN_LIST existing)
    list(APPEND faults "${header} is listed in cmake/headers.cmake, but does not exist")
  endif()
endforeach()

set(umbrella include/instance_guard/instance_guard.hpp)
if(umbrella IN_LIST existing)
  file(READ ${ROOT}/${umbrella} text)
  foreach(header IN LISTS existing)
    cmake_path(GET header FILENAME name)
    if(header MATCHES "^include/instance_guard/[^/]+$" AND NOT header STREQUAL umbrella
       AND NOT text MATCHES "#include [<\"](instance_guard/)?${name}[>\"]")
      list(APPEND faults "${umbrella} does not include ${name}")
    endif()
  endforeach()
endif()

if(faults)
  list(JOIN faults "\n  " faults)
  message(FATAL_ERROR "\n  ${faults}")
endif()
