#!/usr/bin/env bash
# Compiles each program of this folder and checks the compiler's messages:
#   compile_test.sh COMPILER FLAGS...
# A program's first line is "// compiles" or "// says: SENTENCE". In the second case it must not compile, and the
# sentence must be in the first ten lines that the compiler prints.
set -u
compiler=$1
flags=("${@:2}")
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$here/program.h" "$scratch/program.h"

# The header is compiled once; each compiler finds its own precompiled form of it.
case $("$compiler" --version) in
  *clang*) header="$scratch/program.h.pch"; include=(-include-pch "$header") ;;
  *) header="$scratch/program.h.gch"; include=(-include "$scratch/program.h") ;;
esac
"$compiler" "${flags[@]}" -x c++-header "$scratch/program.h" -o "$header" || exit 1

# compile PROGRAM OPTIONS... keeps what the compiler prints.
compile() {
  "$compiler" "${flags[@]}" "${include[@]}" -I "$scratch" -fsyntax-only "${@:2}" "$1" >"$scratch/said" 2>&1
}
refuses() {
  ! compile "$@" && head -n 10 "$scratch/said" | grep -qF -- "$sentence"
}

failed=0 count=0
for program in "$here"/*.cc; do
  name=$(basename "$program" .cc)
  expected=$(head -n 1 "$program")
  count=$((count + 1))
  if [[ $expected == "// compiles" ]]; then
    compile "$program" && continue
    echo "$name does not compile:"
  else
    sentence=${expected#// says: }
    # What follows the first error takes most of the time, and is needed only if the sentence is not in the first error.
    refuses "$program" -Wfatal-errors && continue
    refuses "$program" && continue
    echo "$name: \"$sentence\" is not in the first ten lines, or it compiles:"
  fi
  head -n 12 "$scratch/said" | cut -c 1-300
  failed=$((failed + 1))
done
echo "$count programs, $failed wrong"
[[ $failed == 0 && $count -gt 0 ]]
