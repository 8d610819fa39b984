#!/usr/bin/env bash
# Every installed header compiles alone without a warning, and none reaches a library that is ours to hide:
# COMPILER INCLUDE_FOLDER SOURCE_FOLDER
# A header that its own .cpp includes first has been compiled alone already, with the library; the others are here.
set -eu
export compiler=$1 include=$2 source=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { "$compiler" -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$include" "$@" -x c++ -; }
check() { echo "#include \"$1\"" | compile || { echo "FAILED: $1 does not compile by itself"; return 1; }; }
export -f check compile

headers=$(cd "$include" && find tandem -name '*.h' | sort)
[ -n "$headers" ] || { echo "FAILED: no headers in $include"; exit 1; }
alone=$(for header in $headers; do
  own=${header#tandem/}
  first=$(sed -n '/^ *#include/{p;q}' "$source/${own%.h}.cpp" 2>/dev/null) || true
  [ "$first" = "#include \"$own\"" ] || echo "$header"
done)
echo "$alone" | xargs -P "$(nproc)" -I {} bash -c 'check {}' || exit 1

# All together: what do they need?
sed 's/.*/#include "&"/' <<<"$headers" | compile -MD -MF "$work/needs" || { echo "FAILED: the headers don't go together"; exit 1; }
found=$(tr ' ' '\n' <"$work/needs" | grep -v "^$include/tandem/" |
  grep -iE '/(eigen3?|nlohmann|cli11|cuda[^/]*|cudnn[^/]*|cublas[^/]*|nvrtc[^/]*|dnnl[^/]*|oneapi|omp|zlib)(/|\.h|$)') || true
[ -z "$found" ] || { echo "FAILED: a header includes $found"; exit 1; }
echo "$(wc -l <<<"$headers") headers compile alone ($(wc -l <<<"$alone") of them here), with none of Eigen, CUDA, oneDNN, OpenMP, zlib, CLI11 and JSON"
