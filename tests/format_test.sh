#!/usr/bin/env bash
# Every C++ file must be formatted by clang-format 14. Other versions format some lines differently, so they are not
# used.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
format=
for program in clang-format-14 clang-format; do
  if command -v "$program" >/dev/null && [[ $("$program" --version) == *"version 14."* ]]; then format=$program; break; fi
done
if [ -z "$format" ]; then
  echo "skipped: clang-format 14 is not installed"
  exit 77
fi
mapfile -t files < <(git ls-files -- '*.cc' '*.h')
[ ${#files[@]} -gt 200 ] || { echo "only ${#files[@]} files were found" >&2; exit 1; }
"$format" --dry-run --Werror "${files[@]}"
echo "format: files=${#files[@]} differing=0"
