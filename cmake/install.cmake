# Headers and a package for find_package(instance_guard). Nothing is compiled, so nothing depends on the
# architecture.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(package_directory ${CMAKE_INSTALL_DATADIR}/cmake/instance_guard)

install(TARGETS instance_guard EXPORT instance_guard FILE_SET HEADERS FILE_SET inner FILE_SET linux FILE_SET darwin)
install(EXPORT instance_guard NAMESPACE instance_guard:: DESTINATION ${package_directory}
        FILE instance_guard-config.cmake)

# Before 1.0 a minor version may change what a user wrote: only the same one will do.
write_basic_package_version_file(instance_guard-config-version.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/instance_guard-config-version.cmake
        DESTINATION ${package_directory})
