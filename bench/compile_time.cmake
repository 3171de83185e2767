# cmake -D COMPILER=c++ -D FLAGS=… -D INCLUDE=<include directory> [-D ROUNDS=n] -P compile_time.cmake
# What including single_instance.hpp costs, against the standard and system headers that it needs, compiled in
# turn. Prints the fastest of each and their ratio.

cmake_minimum_required(VERSION 3.25)

if(NOT ROUNDS)
  set(ROUNDS 7)
endif()
set(place ${CMAKE_CURRENT_BINARY_DIR}/compile_time)
file(MAKE_DIRECTORY ${place})

separate_arguments(FLAGS)
set(compile ${COMPILER} ${FLAGS} -std=c++20 -O0 -I ${INCLUDE})
file(WRITE ${place}/library.cpp "#include <instance_guard/single_instance.hpp>\nint main() {}\n")

# Every <…> in the headers of the library that it includes on this system, and nothing else.
execute_process(COMMAND ${compile} -M ${place}/library.cpp OUTPUT_VARIABLE rule COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^ \n]*/instance_guard/[^ \n]*\\.hpp" headers "${rule}")
set(foreign)
foreach(header IN LISTS headers)
  file(STRINGS ${header} lines REGEX "^#include <")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE " *//.*" "" line "${line}")
    list(APPEND foreign "${line}")
  endforeach()
endforeach()
list(REMOVE_DUPLICATES foreign)
list(SORT foreign)
list(JOIN foreign "\n" text)
file(WRITE ${place}/standard.cpp "${text}\nint main() {}\n")

foreach(round RANGE 1 ${ROUNDS})
  foreach(what IN ITEMS standard library)
    string(TIMESTAMP before "%s%f" UTC)
    execute_process(COMMAND ${compile} -c ${place}/${what}.cpp -o ${place}/${what}.o COMMAND_ERROR_IS_FATAL ANY)
    string(TIMESTAMP after "%s%f" UTC)
    math(EXPR took "(${after} - ${before}) / 1000")
    if(NOT DEFINED best_${what} OR took LESS best_${what})
      set(best_${what} ${took})
    endif()
  endforeach()
endforeach()

math(EXPR hundredths "100 * ${best_library} / ${best_standard}")
math(EXPR whole "${hundredths} / 100")
math(EXPR rest "${hundredths} % 100")
if(rest LESS 10)
  set(rest 0${rest})
endif()
message("including single_instance.hpp: ${best_library} ms, the headers it needs: ${best_standard} ms, ratio ${whole}.${rest}")
