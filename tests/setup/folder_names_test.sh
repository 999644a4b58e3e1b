#!/usr/bin/env bash
# A clone can be configured in a folder whose name has a blank and is not a plain regular expression:
# folder_names_test.sh CMAKE GENERATOR COMPILER. Without LibTorch, and nothing is compiled.
set -euo pipefail
cmake=$1 generator=$2 compiler=$3
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
clone="$scratch/c++ (x)"
mkdir "$clone"
cp -r "$root"/CMakeLists.txt "$root"/LICENSE "$root"/{cmake,storage,runtime,tools,tests} "$clone"
if ! output=$("$cmake" -S "$clone" -B "$clone/build" -G "$generator" "-DCMAKE_CXX_COMPILER=$compiler" -DHOLDFAST_RUNTIME=OFF \
  -DHOLDFAST_TESTS=ON 2>&1); then
  printf 'not configured in %s:\n%s\n' "$clone" "$output" >&2
  exit 1
fi
