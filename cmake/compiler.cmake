# The compiler, and the flags that every library shares.
set(oldest_GNU 11)
set(oldest_Clang 14)
if(HOLDFAST_RUNTIME)
  set(oldest_Clang 16)
endif()
if(DEFINED oldest_${CMAKE_CXX_COMPILER_ID})
  if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS oldest_${CMAKE_CXX_COMPILER_ID})
    message(FATAL_ERROR "${CMAKE_CXX_COMPILER} is version ${CMAKE_CXX_COMPILER_VERSION}; Holdfast needs g++ 11 or newer, "
                        "or clang 16 or newer (14 with -DHOLDFAST_RUNTIME=OFF). Name another with -DCMAKE_CXX_COMPILER=.")
  endif()
endif()

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ON)
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)

find_program(HOLDFAST_CCACHE ccache)
if(HOLDFAST_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${HOLDFAST_CCACHE}")
endif()

# Sources are named by their path in the project, in messages and wherever else __FILE__ gets. A clone in another folder
# then also finds its compilations in ccache.
add_compile_options("-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=")

add_library(holdfast_warnings INTERFACE)
target_compile_options(holdfast_warnings INTERFACE -Wall -Wextra -Wpedantic $<$<BOOL:${HOLDFAST_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12
   AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 warns about the standard library's own std::string::insert and operator+ (GCC bug 105651).
  target_compile_options(holdfast_warnings INTERFACE -Wno-restrict)
endif()

if(HOLDFAST_SANITIZE)
  # LibTorch is built without sanitizers, so they would report false errors in memory that it allocates.
  if(HOLDFAST_RUNTIME)
    message(FATAL_ERROR "HOLDFAST_SANITIZE covers storage and tools only: add -DHOLDFAST_RUNTIME=OFF.")
  endif()
  add_compile_options(-fsanitize=${HOLDFAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${HOLDFAST_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The sanitizers' instrumentation hides initializations from GCC, which then warns about std::function in
    # std::regex.
    target_compile_options(holdfast_warnings INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

if(HOLDFAST_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang OR HOLDFAST_RUNTIME)
    message(FATAL_ERROR "HOLDFAST_FUZZ needs clang and covers storage only: add -DCMAKE_CXX_COMPILER=clang++ -DHOLDFAST_RUNTIME=OFF.")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
