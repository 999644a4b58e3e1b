# What `cmake --install` installs: libraries, headers, the holdfast command, and the CMake package Holdfast with the
# components storage and runtime. Each component has its own export, so that a program that needs only storage does not
# need LibTorch.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(holdfast_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Holdfast")

set(libraries storage)
if(TARGET holdfast_runtime)
  list(APPEND libraries runtime)
endif()
foreach(library IN LISTS libraries)
  install(TARGETS holdfast_${library} EXPORT Holdfast_${library} FILE_SET HEADERS)
  install(EXPORT Holdfast_${library} NAMESPACE Holdfast:: FILE Holdfast_${library}.cmake DESTINATION "${holdfast_package_dir}")
endforeach()
if(TARGET holdfast)
  install(TARGETS holdfast)
endif()

configure_package_config_file(cmake/HoldfastConfig.cmake.in "${PROJECT_BINARY_DIR}/HoldfastConfig.cmake"
                              INSTALL_DESTINATION "${holdfast_package_dir}")
# Before 1.0 a minor version may change the C++ interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/HoldfastConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/HoldfastConfig.cmake" "${PROJECT_BINARY_DIR}/HoldfastConfigVersion.cmake"
              cmake/FindLibTorch.cmake cmake/FindxxHash.cmake
        DESTINATION "${holdfast_package_dir}")
