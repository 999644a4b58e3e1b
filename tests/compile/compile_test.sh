#!/usr/bin/env bash
# Compiles each program of this folder and checks the compiler's messages:
#   compile_test.sh COMPILER FLAGS...
# A program's first line is "// compiles" or "// says: SENTENCE". In the second case it must not compile, and the
# sentence must be in the first ten lines that the compiler prints.
set -u
compiler=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$here/program.h" "$scratch/program.h"

# The header is compiled once; each compiler finds its own precompiled form of it.
case $("$compiler" --version) in
  *clang*) header="$scratch/program.h.pch"; include=(-include-pch "$header") ;;
  *) header="$scratch/program.h.gch"; include=(-include "$scratch/program.h") ;;
esac
"$compiler" "$@" -x c++-header "$scratch/program.h" -o "$header" || exit 1

failed=0 count=0
for program in "$here"/*.cc; do
  name=$(basename "$program" .cc)
  expected=$(head -n 1 "$program")
  count=$((count + 1))
  if "$compiler" "$@" "${include[@]}" -I "$scratch" -fsyntax-only "$program" >"$scratch/said" 2>&1; then
    compiled=yes
  else
    compiled=no
  fi
  if [[ $expected == "// compiles" ]]; then
    [[ $compiled == yes ]] && continue
    echo "$name does not compile:"
  else
    sentence=${expected#// says: }
    [[ $compiled == no ]] && head -n 10 "$scratch/said" | grep -qF -- "$sentence" && continue
    echo "$name: \"$sentence\" is not in the first ten lines, or it compiles:"
  fi
  head -n 12 "$scratch/said" | cut -c 1-300
  failed=$((failed + 1))
done
echo "$count programs, $failed wrong"
[[ $failed == 0 && $count -gt 0 ]]
