#!/usr/bin/env bash
# Checks which LibTorch tools/choose-libtorch chooses, with programs that answer its questions as Pythons would.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0 checks=0

# Makes $scratch/NAME/bin/python3 with a torch of VERSION ("" for none). Further words: name=value, of which abi
# (True, False or empty: the import fails), packages (installed in addition to torch), prefix (of an environment; ""
# for a system's Python), pip (ok or not) and headers (yes or no).
fake_python() {
  local name=$1 version=$2 abi=True packages="numpy safetensors" prefix='' pip=ok headers=yes word
  for word in "${@:3}"; do local "$word"; done
  local folder=$scratch/$name/torch
  mkdir -p "$scratch/$name/bin" "$folder/lib" "$folder/include/ATen"
  touch "$folder/lib/libtorch_cpu.so"
  if [ "$headers" = yes ]; then touch "$folder/include/ATen/ATen.h"; fi
  cat >"$scratch/$name/bin/python3" <<PYTHON
#!/bin/bash
packages=\$(cat "$scratch/$name/packages")
case "\$*" in
  *importlib.metadata*) if [ -n "$version" ]; then printf '%s\n' "$version" "$folder"; fi ;;
  *compiled_with_cxx11_abi*) [ -n "$abi" ] && echo "$abi" ;;
  *find_spec*) for package in "\${@:3}"; do [[ " \$packages " == *" \$package "* ]] || exit 1; done ;;
  *sys.prefix*) echo "$prefix" ;;
  "-m pip install"*) [ "$pip" = ok ] && echo "numpy safetensors torch" >"$scratch/$name/packages" ;;
  *) echo "unexpected: \$*" >&2; exit 9 ;;
esac
PYTHON
  chmod +x "$scratch/$name/bin/python3"
  ln -sf python3 "$scratch/$name/bin/python"
  echo "$packages ${version:+torch}" >"$scratch/$name/packages"
}

# chosen WHAT WANTED_ROOT WANTED_PYTHON SENTENCE [VARIABLE=VALUE ...]: runs the choice with these variables only.
chosen() {
  local got wanted="$2|$3"
  checks=$((checks + 1))
  # shellcheck disable=SC2016  # the inner shell expands it
  got=$(env -i PATH="$scratch/path/bin:/usr/bin:/bin" "${@:5}" bash -c '
    set -euo pipefail
    root=$1; . "$root/tools/choose-libtorch"
    choose_libtorch numpy safetensors 2>/dev/null
    printf "%s|%s\n%s\n" "$libtorch_root" "$libtorch_python" "$libtorch_reason"' _ "$root") || got="failed $?"
  if [ "${got%%$'\n'*}" != "$wanted" ] || [[ $got != *"$4"* ]]; then
    printf '%s:\n  wanted %s … %s\n  got    %s\n' "$1" "$wanted" "$4" "$got" >&2
    failures=$((failures + 1))
  fi
}

fake_python path ""
fake_python old 2.10.2
fake_python good 2.13.0
fake_python bare 2.13.0 headers=no
fake_python old_abi 2.13.0 abi=False
fake_python broken 2.13.0 abi=
fake_python later 2.16.0
fake_python lacking 2.12.1 packages=numpy prefix="$scratch/lacking"
fake_python refusing 2.12.1 packages=numpy prefix="$scratch/refusing" pip=no
fake_python system 2.12.1 packages=numpy
at() { echo "$scratch/$1/torch"; }
with() { echo "$scratch/$1/bin/python${2:-}"; }
active() { echo "VIRTUAL_ENV=$scratch/$1"; }
first() { echo "PATH=$scratch/$1/bin:/usr/bin:/bin"; }

chosen "no torch anywhere" "" "" "path/bin/python3 has no torch"
chosen "an active environment" "$(at good)" "$(with good)" "torch 2.13.0 of the active environment" "$(active good)"
chosen "python3 in PATH" "$(at good)" "$(with good 3)" "torch 2.13.0 of $scratch/good" "$(first good)"
chosen "the environment before python3" "$(at lacking)" "$(with lacking)" "2.12.1" "$(active lacking)" "$(first good)"
chosen "python3 if the environment's is too old" "$(at good)" "$(with good 3)" "2.13.0" "$(active old)" "$(first good)"
chosen "LibTorch_ROOT before both" /elsewhere "" "LibTorch_ROOT is set" LibTorch_ROOT=/elsewhere "$(active good)"
chosen "LibTorch_ROOT with a Python" "$scratch/good" "$(with good)" "is set" "LibTorch_ROOT=$scratch/good"
chosen "own, regardless of the others" "" "" "asked for" HOLDFAST_TORCH=own LibTorch_ROOT=/elsewhere "$(active good)"
chosen "too old" "" "" "has torch 2.10.2, not 2.11 to 2." "$(active old)"
chosen "not tested yet" "" "" "has torch 2.16.0, not 2.11 to 2." "$(active later)"
chosen "no headers" "" "" "without headers" "$(active bare)"
chosen "the old ABI" "" "" "old C++ ABI" "$(active old_abi)"
chosen "cannot be imported" "" "" "cannot be imported" "$(active broken)"
chosen "packages cannot be added" "" "" "cannot be installed there" "$(active refusing)"
chosen "packages are not added to a system" "" "" "cannot be installed there" "$(first system)"
chosen "no such environment" "" "" "has no Python" "$(active absent)"
[ "$(cat "$scratch/lacking/packages")" = "numpy safetensors torch" ] || { echo "nothing was installed" >&2; failures=1; }

# shellcheck source=tools/choose-libtorch
. "$root/tools/choose-libtorch"
for pair in 2.11=2.11.0 2.13.7=2.13.7 2.11.0=2.11.0 2.10.0= 2.1= 2.99.0= 2.11.0rc1= =; do
  checks=$((checks + 1))
  got=$(tested_version "${pair%%=*}") || got=
  if [ "$got" != "${pair#*=}" ]; then
    echo "tested_version ${pair%%=*} is '$got', not '${pair#*=}'" >&2
    failures=$((failures + 1))
  fi
done
echo "choice of LibTorch: checks=$checks failures=$failures"
[ "$failures" = 0 ]
