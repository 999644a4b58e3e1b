#!/usr/bin/env bash
# Checks which versions cmake/FindLibTorch.cmake accepts: find_libtorch_test.sh CMAKE GENERATOR COMPILER. Folders that look like
# LibTorch are enough, because nothing is compiled.
set -euo pipefail
cmake=$1 generator=$2 compiler=$3
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tools/choose-libtorch
. "$root/tools/choose-libtorch"
newest=${libtorch_versions[-1]}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(finds CXX)
list(APPEND CMAKE_MODULE_PATH "$root/cmake")
find_package(LibTorch REQUIRED)
message(STATUS "uses \${LibTorch_VERSION}")
CMAKE

# Makes the environment $scratch/$1 with LibTorch $1.
fake_libtorch() {
  local folder=$scratch/$1/lib/python3.99/site-packages/torch numbers
  IFS=. read -r -a numbers <<<"$1"
  mkdir -p "$folder/lib" "$folder/include/ATen" "$folder/include/torch/headeronly"
  touch "$folder/lib/libtorch_cpu.so" "$folder/include/ATen/ATen.h"
  printf '#define TORCH_VERSION_%s\n' "MAJOR ${numbers[0]}" "MINOR ${numbers[1]}" "PATCH ${numbers[2]}" \
    >"$folder/include/torch/headeronly/version.h"
}

# finds VERSION CODE SENTENCE [OPTION ...]
finds() {
  local output code=0
  fake_libtorch "$1"
  output=$("$cmake" -S "$scratch" -B "$scratch/build" -G "$generator" --fresh "-DCMAKE_CXX_COMPILER=$compiler" \
    -DCMAKE_CXX_COMPILER_WORKS=ON "-DLibTorch_ROOT=$scratch/$1" "${@:4}" 2>&1 | tr -s ' \n' ' ') || code=1
  if [ "$code" != "$2" ] || [[ $output != *"$3"* ]]; then
    printf 'LibTorch %s: wanted %s … %s\n  got %s %s\n' "$1" "$2" "$3" "$code" "$output" >&2
    exit 1
  fi
}

finds "${libtorch_versions[0]}" 0 "uses ${libtorch_versions[0]}"
finds "${newest%.*}.9" 0 "uses ${newest%.*}.9"
finds 2.10.3 1 "2.10.3 in $scratch/2.10.3/lib/python3.99/site-packages/torch is not supported: Holdfast is tested with LibTorch"
finds 2.10.3 0 "uses 2.10.3" -DHOLDFAST_ANY_LIBTORCH=ON
finds 2.99.0 0 "is not tested: Holdfast is tested with LibTorch 2.11 to ${newest%.*}"
