# Runs after a test program is linked: writes `list`, the ctest tests of its cases, each with exactly one label.
# Catch2's own discovery handles one label a call, warns if a label has no case, and differs between versions 2 and 3.
cmake_minimum_required(VERSION 3.25)

if(catch_version VERSION_LESS 3)
  set(names_only --list-test-names-only)
  set(may_be_empty)
else()
  set(names_only --list-tests --verbosity quiet)
  set(may_be_empty --allow-running-no-tests)
endif()

set(fast "~[full]~[long]~[gpu]")
set(full "[full]~[long]~[gpu]")
set(long "[long]~[gpu]")
set(gpu "[gpu]")
set(timeout_fast 120)
set(timeout_full 1200)
set(timeout_long 7200)
set(timeout_gpu 1200)
set(script)

function(add_case name label)
  string(APPEND script "add_test([==[${program}.${name}]==] [==[${executable}]==]")
  foreach(argument IN LISTS ARGN)
    string(APPEND script " [==[${argument}]==]")
  endforeach()
  string(APPEND script ")\nset_tests_properties([==[${program}.${name}]==] PROPERTIES LABELS ${label} "
                       "TIMEOUT ${timeout_${label}})\n")
  set(script "${script}" PARENT_SCOPE)
endfunction()

set(labels fast full long gpu)
if(files)
  foreach(file IN LISTS files)
    add_case(${file} fast "--filenames-as-tags" "[#${file}]${fast}" ${may_be_empty})
  endforeach()
  list(REMOVE_ITEM labels fast)
endif()

foreach(label IN LISTS labels)
  execute_process(COMMAND "${executable}" ${names_only} "${${label}}" ${may_be_empty}
                  OUTPUT_VARIABLE output ERROR_VARIABLE error RESULT_VARIABLE result)
  # Version 2 exits with the number of cases, and with 255 for an error. After a signal, `result` is not a number.
  if(NOT result MATCHES "^[0-9]+$" OR (result EQUAL 255 AND output STREQUAL ""))
    message(FATAL_ERROR "${executable} cannot list its tests (${result}): ${output}${error}")
  endif()
  string(REGEX MATCHALL "[^\n]+" names "${output}")
  foreach(name IN LISTS names)
    string(REGEX REPLACE "([],[\\])" "\\\\\\1" escaped "${name}")
    add_case("${name}" ${label} "${escaped}")
  endforeach()
endforeach()

# Cases tagged [alone] measure time or need the whole machine, so no other test runs at the same time.
execute_process(COMMAND "${executable}" ${names_only} "[alone]" ${may_be_empty} OUTPUT_VARIABLE output ERROR_QUIET)
string(REGEX MATCHALL "[^\n]+" names "${output}")
foreach(name IN LISTS names)
  string(APPEND script "set_tests_properties([==[${program}.${name}]==] PROPERTIES RUN_SERIAL TRUE)\n")
endforeach()
file(WRITE "${list}" "${script}")
