# Installs the build into a fresh prefix and builds programs against it, as a user of find_package(Holdfast) would.
# cmake -D build=… -D source=… -D scratch=… [-D runtime=ON] [-D libtorch=…] -P check.cmake
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "failed (${result}): ${command}")
  endif()
endfunction()

function(build_consumer name folder)
  run("${CMAKE_COMMAND}" -S "${folder}" -B "${scratch}/${name}" -G "${generator}" "-DCMAKE_CXX_COMPILER=${compiler}"
      "-DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}" "-DCMAKE_PREFIX_PATH=${scratch}/prefix"
      -DCMAKE_BUILD_TYPE=None -DCMAKE_FIND_PACKAGE_NO_PACKAGE_REGISTRY=ON ${ARGN})
  run("${CMAKE_COMMAND}" --build "${scratch}/${name}" -j 2)
endfunction()

file(REMOVE_RECURSE "${scratch}")
run("${CMAKE_COMMAND}" --install "${build}" --prefix "${scratch}/prefix")

# CMAKE_DISABLE_FIND_PACKAGE: the storage component must not even look for LibTorch.
build_consumer(storage_only "${source}/tests/installed/storage_only" -DCMAKE_DISABLE_FIND_PACKAGE_LibTorch=ON)
run("${scratch}/storage_only/storage_only")
if(runtime)
  build_consumer(examples "${source}/examples" "-DLibTorch_ROOT=${libtorch}")
endif()
