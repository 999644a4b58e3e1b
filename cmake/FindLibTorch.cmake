#[=[
Finds LibTorch: the C++ library in a torch wheel, or an unpacked LibTorch download. CPU-only and CUDA ones alike.

LibTorch's own find_package(Torch) is not used: it stops where no CUDA toolkit is installed, and turns on CUDA
compilation where one is. The programs here need neither.

Where it looks, first match wins:
  1. LibTorch_ROOT (CMake or environment variable): the `torch` folder of a wheel, or an unpacked LibTorch
  2. the active Python, if it has torch: that of an activated virtual environment, else python3
  3. the project's virtual environments, as tools/setup makes them: ~/.cache/holdfast/libtorch-<version>, then .venv
Of 2 and 3, the first whose version was tested, or else the first.

Targets
  LibTorch::LibTorch   everything below, with include directories and definitions
  LibTorch::c10, LibTorch::torch_cpu, LibTorch::torch, and where present LibTorch::c10_cuda, LibTorch::torch_cuda
  LibTorch::cudart     the CUDA runtime that LibTorch itself uses; only when LibTorch_CUDA

Variables
  LibTorch_FOUND, LibTorch_VERSION, LibTorch_FOLDER, LibTorch_LIBRARY_DIR
  LibTorch_CUDA   this LibTorch has CUDA kernels, and a CUDA toolkit's headers of the same major version were found, so
                  code that uses streams and events can be compiled
  LibTorch_NCCL   LibTorch_CUDA is ON and nccl.h was found: USE_C10D_NCCL is defined
#]=]

# The supported versions: the last patch of each minor version, because LibTorch promises no stable C++ API between minor
# versions. `tools/run-tests --long` runs the runtime's fast tests with each of them. The first is the one that was
# tested on GPUs. Older versions are refused; newer ones are tried, with a warning.
# tools/setup reads this list.
set(_LibTorch_versions 2.11.0 2.12.1 2.13.0 2.14.1 2.15.0)
list(TRANSFORM _LibTorch_versions REPLACE "[.][0-9]+$" "" OUTPUT_VARIABLE _LibTorch_minors)
list(GET _LibTorch_versions 0 _LibTorch_default)
list(GET _LibTorch_minors 0 _LibTorch_oldest)
list(GET _LibTorch_minors -1 _LibTorch_newest)

# 2.15.3 → 2.15: a new patch does not change the C++ API.
function(_libtorch_minor version result)
  string(REGEX MATCH "^[0-9]+[.][0-9]+" minor "${version}")
  set(${result} "${minor}" PARENT_SCOPE)
endfunction()

function(_libtorch_candidates result)
  set(candidates)
  set(hints)
  if(NOT "$ENV{VIRTUAL_ENV}" STREQUAL "")
    set(hints HINTS "$ENV{VIRTUAL_ENV}/bin")
  endif()
  find_program(_LibTorch_python NAMES python3 python ${hints} NO_CACHE)
  if(_LibTorch_python)
    # Only the folder is queried because importing torch takes seconds.
    execute_process(
      COMMAND "${_LibTorch_python}" -c
              "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    list(APPEND candidates ${folder})
  endif()
  set(venvs)
  foreach(version IN LISTS _LibTorch_versions)
    list(APPEND venvs "$ENV{XDG_CACHE_HOME}/holdfast/libtorch-${version}"
                      "$ENV{HOME}/.cache/holdfast/libtorch-${version}")
  endforeach()
  foreach(venv IN LISTS venvs ITEMS "${CMAKE_SOURCE_DIR}/.venv")
    file(GLOB folders "${venv}/lib/python3*/site-packages/torch")
    list(APPEND candidates ${folders})
  endforeach()
  set(${result} ${candidates} PARENT_SCOPE)
endfunction()

# Older versions of LibTorch keep these numbers in the second header.
function(_libtorch_version folder result)
  foreach(header IN ITEMS torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    if(EXISTS "${folder}/include/${header}")
      file(STRINGS "${folder}/include/${header}" lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
      if(lines)
        string(REGEX REPLACE "[^0-9;]" "" numbers "${lines}")
        string(REPLACE ";" "." version "${numbers}")
        set(${result} "${version}" PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
  set(${result} "unknown" PARENT_SCOPE)
endfunction()

# A wheel names its CUDA version in version.py, a download in build-version.
function(_libtorch_cuda_version folder result)
  set(version)
  if(EXISTS "${folder}/version.py")
    file(STRINGS "${folder}/version.py" line REGEX "^cuda: .*'[0-9.]+'")
    string(REGEX REPLACE ".*'([0-9.]+)'.*" "\\1" version "${line}")
  elseif(EXISTS "${folder}/build-version")
    file(STRINGS "${folder}/build-version" line REGEX "\\+cu[0-9]+")
    string(REGEX REPLACE ".*\\+cu([0-9]+)([0-9]).*" "\\1.\\2" version "${line}")
  endif()
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

set(LibTorch_FOLDER)
set(_LibTorch_why "Set -DLibTorch_ROOT=<the torch folder of a wheel, or an unpacked LibTorch>, or run tools/setup.")
foreach(root IN ITEMS "${LibTorch_ROOT}" "$ENV{LibTorch_ROOT}")
  if(root AND NOT LibTorch_FOLDER)
    # A user may well name a virtual environment, so that works too.
    file(GLOB _LibTorch_inside "${root}/lib/python3*/site-packages/torch" "${root}/torch" "${root}/libtorch")
    foreach(folder IN ITEMS "${root}" ${_LibTorch_inside})
      if(NOT LibTorch_FOLDER AND EXISTS "${folder}/lib/libtorch_cpu.so")
        set(LibTorch_FOLDER "${folder}")
      endif()
    endforeach()
    if(NOT LibTorch_FOLDER)
      set(_LibTorch_why "LibTorch_ROOT is ${root}, but there is no lib/libtorch_cpu.so in it.")
      set(LibTorch_FOLDER "LibTorch_FOLDER-NOTFOUND")
      break()
    endif()
  endif()
endforeach()
if("${LibTorch_FOLDER}" STREQUAL "")
  _libtorch_candidates(_LibTorch_candidates)
  list(FILTER _LibTorch_candidates INCLUDE REGEX .)
  set(_LibTorch_untested)
  foreach(folder IN LISTS _LibTorch_candidates)
    # A distribution may package the libraries without their headers.
    if(NOT LibTorch_FOLDER AND EXISTS "${folder}/lib/libtorch_cpu.so" AND EXISTS "${folder}/include/ATen/ATen.h")
      _libtorch_version("${folder}" _LibTorch_found)
      _libtorch_minor("${_LibTorch_found}" _LibTorch_minor)
      if(_LibTorch_minor IN_LIST _LibTorch_minors)
        set(LibTorch_FOLDER "${folder}")
      else()
        list(APPEND _LibTorch_untested "${folder}")
      endif()
    endif()
  endforeach()
  if(NOT LibTorch_FOLDER AND _LibTorch_untested)
    list(GET _LibTorch_untested 0 LibTorch_FOLDER)
  endif()
endif()

set(LibTorch_VERSION)
set(LibTorch_CUDA OFF)
set(LibTorch_NCCL OFF)
if(LibTorch_FOLDER)
  set(LibTorch_LIBRARY_DIR "${LibTorch_FOLDER}/lib")
  _libtorch_version("${LibTorch_FOLDER}" LibTorch_VERSION)
  _libtorch_minor("${LibTorch_VERSION}" _LibTorch_minor)
  set(_LibTorch_tested "Holdfast is tested with LibTorch ${_LibTorch_oldest} to ${_LibTorch_newest}")
  if(LibTorch_VERSION STREQUAL "unknown" OR _LibTorch_minor VERSION_LESS _LibTorch_oldest)
    set(_LibTorch_sentence "LibTorch ${LibTorch_VERSION} in ${LibTorch_FOLDER} is not supported: ${_LibTorch_tested}. \
Install one of these with tools/setup or pip install torch==${_LibTorch_default}, or name its folder with \
-DLibTorch_ROOT=<folder>. -DHOLDFAST_ANY_LIBTORCH=ON tries this one anyway.")
    if(HOLDFAST_ANY_LIBTORCH)
      message(WARNING "${_LibTorch_sentence}")
    else()
      set(_LibTorch_why "${_LibTorch_sentence}")
      set(LibTorch_FOLDER "LibTorch_FOLDER-NOTFOUND")
    endif()
  elseif(NOT _LibTorch_minor IN_LIST _LibTorch_minors)
    message(WARNING "LibTorch ${LibTorch_VERSION} in ${LibTorch_FOLDER} is not tested: ${_LibTorch_tested}. If it does \
not work, use one of these: tools/setup --own-libtorch installs ${_LibTorch_default}.")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_FOLDER VERSION_VAR LibTorch_VERSION
                                  REASON_FAILURE_MESSAGE "${_LibTorch_why}")
if(NOT LibTorch_FOUND OR TARGET LibTorch::LibTorch)
  return()
endif()

# ABI: from 2.7 on every LibTorch is built with libstdc++'s new std::string (_GLIBCXX_USE_CXX11_ABI=1), which is also
# the default of every supported compiler, so no flag is needed. With a compiler set to the old ABI, linking fails.
add_library(LibTorch::LibTorch INTERFACE IMPORTED)
foreach(name IN ITEMS c10 torch_cpu torch c10_cuda torch_cuda)
  if(EXISTS "${LibTorch_LIBRARY_DIR}/lib${name}.so")
    add_library(LibTorch::${name} SHARED IMPORTED)
    set_target_properties(LibTorch::${name} PROPERTIES IMPORTED_LOCATION "${LibTorch_LIBRARY_DIR}/lib${name}.so"
                                                       IMPORTED_NO_SONAME OFF)
    target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::${name})
  endif()
endforeach()
target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
  "${LibTorch_FOLDER}/include" "${LibTorch_FOLDER}/include/torch/csrc/api/include")
# LibTorch brings fmt's headers, newer than the distribution's, and its own headers include them. They shadow the
# system's, so code that uses fmt beside LibTorch uses these, without the system's libfmt.
target_compile_definitions(LibTorch::LibTorch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO FMT_HEADER_ONLY)
# Kernels register themselves when their library is loaded. Nothing refers to their symbols, so a linker that keeps only
# libraries that are referred to would drop them.
target_link_options(LibTorch::LibTorch INTERFACE LINKER:--no-as-needed)
find_package(Threads REQUIRED)
target_link_libraries(LibTorch::LibTorch INTERFACE Threads::Threads ${CMAKE_DL_LIBS})

if(TARGET LibTorch::torch_cuda)
  _libtorch_cuda_version("${LibTorch_FOLDER}" _LibTorch_cuda)
  find_package(CUDAToolkit QUIET)
  # The headers in NVIDIA's Python packages are incomplete: crt/ is missing there.
  find_path(_LibTorch_crt crt/host_defines.h HINTS ${CUDAToolkit_INCLUDE_DIRS} NO_CACHE)
  string(REGEX MATCH "^[0-9]+" _LibTorch_cuda_major "${_LibTorch_cuda}")
  if(NOT CUDAToolkit_FOUND OR NOT _LibTorch_crt)
    set(_LibTorch_cuda_state "no CUDA toolkit found: everything is built but NCCL and stream code")
  elseif(_LibTorch_cuda_major AND NOT CUDAToolkit_VERSION_MAJOR EQUAL _LibTorch_cuda_major)
    set(_LibTorch_cuda_state "the CUDA toolkit found is ${CUDAToolkit_VERSION}, LibTorch's is ${_LibTorch_cuda}: \
everything is built but NCCL and stream code")
  else()
    set(LibTorch_CUDA ON)
    # Two CUDA runtimes in one process would each keep their own state, so LibTorch's own is linked if it is found.
    find_library(_LibTorch_cudart NAMES "libcudart.so.${CUDAToolkit_VERSION_MAJOR}" cudart NO_CACHE
                 HINTS "${LibTorch_FOLDER}/../nvidia/cu${CUDAToolkit_VERSION_MAJOR}/lib"
                       "${LibTorch_FOLDER}/../nvidia/cuda_runtime/lib" "${LibTorch_LIBRARY_DIR}"
                       "${CUDAToolkit_LIBRARY_DIR}")
    add_library(LibTorch::cudart SHARED IMPORTED)
    set_target_properties(LibTorch::cudart PROPERTIES IMPORTED_LOCATION "${_LibTorch_cudart}")
    target_include_directories(LibTorch::cudart SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
    target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::cudart)
    find_path(_LibTorch_nccl nccl.h NO_CACHE
              HINTS "${LibTorch_FOLDER}/../nvidia/nccl/include" ${CUDAToolkit_INCLUDE_DIRS})
    if(_LibTorch_nccl)
      set(LibTorch_NCCL ON)
      target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE "${_LibTorch_nccl}")
      target_compile_definitions(LibTorch::LibTorch INTERFACE USE_C10D_NCCL)
      set(_LibTorch_cuda_state "CUDA ${CUDAToolkit_VERSION} with NCCL")
    else()
      set(_LibTorch_cuda_state "CUDA ${CUDAToolkit_VERSION}, nccl.h not found: everything is built but NCCL")
    endif()
  endif()
else()
  set(_LibTorch_cuda_state "this LibTorch is CPU-only: everything is built but NCCL and stream code")
endif()
if(NOT LibTorch_FIND_QUIETLY)
  message(STATUS "LibTorch ${LibTorch_VERSION}: ${_LibTorch_cuda_state}")
endif()
