#!/usr/bin/env bash
# Builds and runs the consumer by pkg-config: COMPILER PACKAGE CONSUMER OUTPUT_FOLDER
set -eu
compiler=$1 package=$2 consumer=$3 output=$4
pc=$(find "$package" -name tandem.pc)
export PKG_CONFIG_PATH=${pc%/*}
mkdir -p "$output"
read -ra flags <<<"$(pkg-config --cflags --libs tandem)"
"$compiler" -std=c++20 -I "$consumer" "$consumer/main.cpp" "${flags[@]}" -Wl,-rpath,"${PKG_CONFIG_PATH%/pkgconfig}" -o "$output/consumer"
"$output/consumer"
