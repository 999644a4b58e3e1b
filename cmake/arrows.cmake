# The modules and the dependencies ("arrows") between them: for each module, the other modules that it may use. The
# build makes an object library of each module that has sources, and the test `arrows` (tests/arrows.cmake) checks every
# #include against this table. A folder is a module: <library>/src/<module>, with its public headers in
# <library>/include/holdfast/<library>/<module>.
#
# "." is the library's own folder. Everything in runtime and tools may also use the public headers of storage.
set(holdfast_arrows
  "storage/.               :"
  "storage/text            : storage/."
  "storage/stores          : storage/. storage/text"
  "storage/stores/file     : storage/. storage/text storage/stores"
  "storage/formats         : storage/. storage/text storage/stores"
  "storage/readers         : storage/. storage/text storage/stores storage/formats"
  "storage/run             : storage/. storage/text storage/stores storage/stores/file storage/formats storage/readers"

  "runtime/.               :"
  "runtime/platform        : runtime/."
  "runtime/process         : runtime/. runtime/platform"
  "runtime/logging         : runtime/."
  "runtime/device          : runtime/. runtime/platform"
  "runtime/tensors         : runtime/."
  "runtime/optim           : runtime/. runtime/tensors"
  "runtime/data            : runtime/. runtime/logging"
  "runtime/policy          : runtime/. runtime/logging"
  "runtime/options         : runtime/. runtime/logging runtime/policy"
  "runtime/libtorch        : runtime/. runtime/optim"
  "runtime/serialize       : runtime/."
  "runtime/state           : runtime/. runtime/logging runtime/tensors runtime/optim runtime/libtorch runtime/serialize"
  "runtime/ranks           : runtime/. runtime/logging runtime/platform runtime/process runtime/policy"
  "runtime/pipeline        : runtime/. runtime/ranks runtime/serialize runtime/data runtime/optim"
  "runtime/pipeline/stages : runtime/. runtime/pipeline runtime/device runtime/optim runtime/tensors"
  "runtime/checkpoint      : runtime/. runtime/logging runtime/process runtime/options runtime/tensors runtime/state runtime/ranks"
  "runtime/session         : runtime/. runtime/platform runtime/process runtime/logging runtime/device runtime/data runtime/policy runtime/options runtime/serialize runtime/state runtime/ranks runtime/pipeline runtime/pipeline/stages runtime/checkpoint"

  "tools/.                 : tools/terminal"
  "tools/terminal          :"
  "tools/inspect           : tools/terminal"
  "tools/launch            : tools/terminal"
  "tools/verbs             : tools/. tools/inspect tools/launch tools/terminal"
)

# Sets holdfast_modules, and for each module holdfast_uses_<module>.
set(holdfast_modules)
foreach(arrow IN LISTS holdfast_arrows)
  string(REGEX MATCH "^([^ ]+) *:(.*)$" match "${arrow}")
  set(module "${CMAKE_MATCH_1}")
  separate_arguments(uses UNIX_COMMAND "${CMAKE_MATCH_2}")
  list(APPEND holdfast_modules "${module}")
  set("holdfast_uses_${module}" "${uses}")
endforeach()
