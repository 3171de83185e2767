# cmake -D NM=nm -D OBJECT=<object file> -D ALLOWED=<list;of;files> -P check_symbols.cmake
# The object file needs no symbol from outside that no file in ALLOWED names. For code that runs in a
# signal handler or between fork and exec: what it calls is then known to be safe there.
# An allow-list has one symbol a line, as nm -C prints it; # starts a comment.

cmake_minimum_required(VERSION 3.25)

set(allowed)
foreach(file IN LISTS ALLOWED)
  file(STRINGS ${file} lines)
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "#.*" "" line "${line}")
    string(STRIP "${line}" line)
    list(APPEND allowed "${line}")
  endforeach()
endforeach()

execute_process(COMMAND ${NM} -u -C ${OBJECT} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "[]" "" symbols "${symbols}")  # a list can't hold unbalanced brackets
string(REPLACE "\n" ";" symbols "${symbols}")
set(faults)
foreach(symbol IN LISTS symbols)
  string(REGEX REPLACE "^ *[Uwv] +" "" symbol "${symbol}")
  string(REGEX REPLACE "@.*" "" symbol "${symbol}")
  if(NOT symbol STREQUAL "" AND NOT symbol IN_LIST allowed)
    list(APPEND faults "${symbol}")
  endif()
endforeach()

if(faults)
  list(JOIN faults "\n  " faults)
  message(FATAL_ERROR "\n  ${OBJECT} needs symbols that are not known to be safe there:\n  ${faults}")
endif()
