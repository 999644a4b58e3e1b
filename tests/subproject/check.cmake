# A project that includes Holdfast with add_subdirectory() keeps its own flags, build type and settings (program/). Only
# its own tests are registered, and installing it installs nothing of Holdfast.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "failed: ${ARGV}\n${said}")
  endif()
  set(said "${said}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE "${scratch}")
run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/program" -B "${scratch}/build" -G "${generator}"
    "-DCMAKE_CXX_COMPILER=${compiler}" "-DHOLDFAST_SOURCE=${source}" "-DCMAKE_INSTALL_PREFIX=${scratch}/prefix")
run("${CMAKE_COMMAND}" --build "${scratch}/build" --parallel 2)
run("${scratch}/build/program")
run("${CMAKE_COMMAND}" --install "${scratch}/build")
file(GLOB_RECURSE installed RELATIVE "${scratch}/prefix" "${scratch}/prefix/*")
if(NOT installed STREQUAL "bin/program")
  message(FATAL_ERROR "the project installs one program, and there is: ${installed}")
endif()
