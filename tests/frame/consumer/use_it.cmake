# Configures, builds and runs the project in the folder WAY, which uses the library in that way.

cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${WORK})
execute_process(COMMAND_ERROR_IS_FATAL ANY
  COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/${WAY} -B ${WORK} -G ${GENERATOR}
    -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_CXX_FLAGS=${FLAGS} -D CMAKE_PREFIX_PATH=${PREFIX}
    -D INSTANCE_GUARD_SOURCE=${SOURCE} -D INSTANCE_GUARD_WANTED=${WANTED})
execute_process(COMMAND_ERROR_IS_FATAL ANY COMMAND ${CMAKE_COMMAND} --build ${WORK})
execute_process(COMMAND_ERROR_IS_FATAL ANY COMMAND ${WORK}/consumer OUTPUT_VARIABLE version)
if(NOT version STREQUAL "${VERSION}\n")
  message(FATAL_ERROR "expected version ${VERSION}, the program says ${version}")
endif()

# A guest in somebody else's build brings nothing but itself.
file(GLOB_RECURSE extra ${WORK}/*test_* ${WORK}/*example_* ${WORK}/instance_guard-config.cmake)
if(extra)
  message(FATAL_ERROR "built beside the library: ${extra}")
endif()
