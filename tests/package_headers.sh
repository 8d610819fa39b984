#!/usr/bin/env bash
# Every installed header compiles alone without a warning, and none reaches a library that is ours to hide:
# COMPILER INCLUDE_FOLDER
set -eu
export compiler=$1 include=$2
work=$(mktemp -d)
export work
trap 'rm -rf "$work"' EXIT

check() {
  local header=$1 needs=$work/${1//\//_}.d found
  echo "#include \"$header\"" |
    "$compiler" -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$include" -MD -MF "$needs" -x c++ - ||
    { echo "FAILED: $header does not compile by itself"; return 1; }
  found=$(tr ' ' '\n' <"$needs" | grep -v "^$include/tandem/" |
    grep -iE '/(eigen3?|nlohmann|cli11|cuda[^/]*|cudnn[^/]*|cublas[^/]*|nvrtc[^/]*|dnnl[^/]*|oneapi|omp|zlib)(/|\.h|$)') || true
  [ -z "$found" ] || { echo "FAILED: $header includes $found"; return 1; }
}
export -f check

headers=$(cd "$include" && find tandem -name '*.h' | sort)
[ -n "$headers" ] || { echo "FAILED: no headers in $include"; exit 1; }
echo "$headers" | xargs -P "$(nproc)" -I {} bash -c 'check {}' || exit 1
echo "$(wc -l <<<"$headers") headers compile alone, with none of Eigen, CUDA, oneDNN, OpenMP, zlib, CLI11 and JSON"
