# The modules and the dependencies ("arrows") between them: for each module, the other modules that it may use. The
# build makes an object library of each module that has sources, and the test `arrows` (tests/arrows.cmake) checks every
# #include against this table. A folder is a module: <library>/src/<module>, with its public headers in
# <library>/include/holdfast/<library>/<module>.
#
# The modules after the colon are of the same library, except those written as runtime/<module>; "." is the library's own
# folder. Everything in runtime and tools may also use the public headers of storage. tools may use no other module of
# runtime than platform, because the command is built and started without LibTorch.
set(holdfast_arrows
  # Status and Result: outcomes as values; steps of protocols; jobs on several threads; what Linux tells about processes
  "storage/. :"
  # text as people read and write it: units, times, quotes, the name nearest to a misspelled one
  "storage/text : ."
  # named bytes: the interface, object names, the store in memory
  "storage/stores : . text"
  # the store in a folder: system calls, locks, direct writes
  "storage/stores/file : . text stores"
  # what is on disk: digests, dtypes, journal entries, manifests, safetensors
  "storage/formats : . text stores"
  # a version's tensors, with digests checked; verification of whole files
  "storage/readers : . text stores formats"
  # the commit protocol: history, payload, writer, retention, metrics
  "storage/run : . text stores stores/file formats readers"
  # copies of a run's versions in other places
  "storage/tiers : . text stores formats readers run"

  # errors, exact JSON numbers, threads
  "runtime/. :"
  # what a process can learn about its machine and its launcher, without LibTorch
  "runtime/platform : ."
  # this process: signals, its end, its name, detached work
  "runtime/process : . platform"
  # preemption notices of the clouds
  "runtime/notices : . platform"
  # log lines, progress, the metrics file
  "runtime/logging : ."
  # choice of the device, and the settings that bit-exactness needs
  "runtime/device : . platform options"
  # tensors to bytes and back; their names, dtypes and shapes
  "runtime/tensors : ."
  # fused optimizers and learning-rate curves
  "runtime/optim : . tensors"
  # loaders, order of samples, random numbers of samples, steps and loops
  "runtime/data : . logging"
  # decisions with a reason: when to save, to stop, to roll back
  "runtime/policy : ."
  # options from code, file, environment and command line
  "runtime/options : . policy platform"
  # members of LibTorch's classes that have no accessor
  "runtime/libtorch : . optim"
  # users' classes and containers to values and tensors, and back
  "runtime/serialize : . tensors"
  # the form of tracked state in a version: its names, what is captured, what a restore does, what fits
  "runtime/snapshot : . tensors"
  # what a run tracks: snapshots, restore plans, optimizers by parameter names
  "runtime/state : . tensors optim libtorch serialize snapshot"
  # rendezvous, collectives, watchdog, step horizon
  "runtime/ranks : . logging platform process policy"
  # the step pipeline: stage interface, engine, gradients of a window
  "runtime/pipeline : . ranks options serialize data optim"
  # one file for each stage: DDP, AMP, accumulation, clipping, schedule, averages
  "runtime/pipeline/stages : . pipeline options device optim tensors"
  # one version of all ranks: gathering, sharing, the run on disk
  "runtime/checkpoint : . logging process options tensors snapshot state ranks"
  # what users call: start, loops, saves, the end
  "runtime/session : . platform process notices logging device data policy options serialize snapshot state ranks pipeline
    pipeline/stages checkpoint"

  # the command and its table of commands
  "tools/. : terminal"
  # tables, colours, progress, phrases
  "tools/terminal :"
  # runs and checkpoints, opened for reading only
  "tools/inspect : terminal"
  # the launcher: ranks as processes, signals, restarts
  "tools/launch : terminal runtime/platform"
  # the machine and its folders, tried before a run
  "tools/doctor : terminal runtime/platform"
  # one file for each command
  "tools/verbs : . doctor inspect launch terminal runtime/platform"
)

# Sets holdfast_modules, and for each module holdfast_uses_<module>.
set(holdfast_modules)
foreach(arrow IN LISTS holdfast_arrows)
  string(REGEX MATCH "^([^ ]+) *:(.*)$" match "${arrow}")
  set(module "${CMAKE_MATCH_1}")
  separate_arguments(uses UNIX_COMMAND "${CMAKE_MATCH_2}")
  string(REGEX REPLACE "/.*" "" library "${module}")
  list(TRANSFORM uses PREPEND "${library}/")
  list(TRANSFORM uses REPLACE "^[a-z]+/runtime/" "runtime/")
  list(APPEND holdfast_modules "${module}")
  set("holdfast_uses_${module}" "${uses}")
endforeach()
