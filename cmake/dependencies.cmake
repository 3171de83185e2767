# What the tests (doctest), the benchmarks (benchmark) and the tool (CLI11, nlohmann_json) need. The installed package is used; where
# there is none, INSTANCE_GUARD_FETCH_DEPENDENCIES=ON downloads a pinned release. The library itself needs nothing.

include(FetchContent)
option(INSTANCE_GUARD_FETCH_DEPENDENCIES "Download what tests, benchmarks and the tool need where it is not installed" OFF)

set(doctest_release https://github.com/doctest/doctest/archive/refs/tags/v2.4.12.tar.gz)
set(doctest_sha256 73381c7aa4dee704bd935609668cf41880ea7f19fa0504a200e13b74999c2d70)
set(benchmark_release https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz)
set(benchmark_sha256 6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7)
set(CLI11_release https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.1.2.tar.gz)
set(CLI11_sha256 26291377e892ba0e5b4972cdfd4a2ab3bf53af8dac1f4ea8fe0d1376b625c8cb)
set(nlohmann_json_release https://github.com/nlohmann/json/archive/refs/tags/v3.11.3.tar.gz)
set(nlohmann_json_sha256 0d8ef5af7f9794e3263480193c491549b2ba6cc74bb018906202ada498a79406)

function(instance_guard_require package)
  find_package(${package} QUIET)
  if(${package}_FOUND)
    return()
  endif()
  if(NOT INSTANCE_GUARD_FETCH_DEPENDENCIES)
    message(FATAL_ERROR "${package} is not installed: run cmake/bootstrap deps, or configure with "
                        "-DINSTANCE_GUARD_FETCH_DEPENDENCIES=ON to download it.")
  endif()
  foreach(part TESTING INSTALL WERROR)
    set(BENCHMARK_ENABLE_${part} OFF CACHE BOOL "" FORCE)
  endforeach()
  foreach(part TESTS EXAMPLES DOCS)
    set(CLI11_BUILD_${part} OFF CACHE BOOL "" FORCE)
  endforeach()
  foreach(part BuildTests Install)
    set(JSON_${part} OFF CACHE BOOL "" FORCE)
  endforeach()
  set(DOCTEST_WITH_TESTS OFF CACHE BOOL "" FORCE)
  set(DOCTEST_NO_INSTALL ON CACHE BOOL "" FORCE)
  FetchContent_Declare(${package} URL ${${package}_release} URL_HASH SHA256=${${package}_sha256}
                       DOWNLOAD_EXTRACT_TIMESTAMP ON)
  FetchContent_MakeAvailable(${package})
endfunction()
