#!/usr/bin/env bash
# Fails if an object compiled for a newer instruction set defines a weak symbol outside its own namespace.
# The linker keeps one copy of each weak (inline) function: if it kept this one, the whole library would
# crash on an older processor. NM INSTRUCTION_SET OBJECT...
set -eu
nm=$1 isa=$2
shift 2
# (DW.ref. symbols are pointers that the compiler makes for exception tables: data, the same in every object.)
shared=$("$nm" --defined-only "$@" | awk '$2 ~ /^[WVu]$/ && $3 !~ /^DW\.ref\./ {print $3}' | sort -u | c++filt | grep -v "::$isa::" || true)
if [ -n "$shared" ]; then
  echo "Weak symbols compiled for $isa, outside namespace $isa (make them static, or put them into it):"
  echo "$shared"
  exit 1
fi
echo "$# objects for $isa share no inline function with the rest"
