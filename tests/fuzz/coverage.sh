#!/bin/sh
# Line coverage of a library by the corpora of its fuzz targets; fails below the least allowed.
#   coverage.sh LEAST_PERCENT SOURCE_DIRECTORY [TARGET CORPUS]...
# The targets are built with clang's -fprofile-instr-generate -fcoverage-mapping.
set -eu
least=$1 source=$2
shift 2
profdata=$(command -v llvm-profdata-14 || command -v llvm-profdata)
cov=$(command -v llvm-cov-14 || command -v llvm-cov)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

objects=
while [ $# -gt 0 ]; do
    LLVM_PROFILE_FILE="$dir/$(basename "$1").profraw" "$1" "$2"
    objects="$objects ${objects:+-object }$1"
    shift 2
done
"$profdata" merge -o "$dir/all" "$dir"/*.profraw
# shellcheck disable=SC2086 # several words are wanted
"$cov" report $objects -instr-profile="$dir/all" "$source" | tee "$dir/report"
# The columns are regions, functions and lines: count, missed, percent.
percent=$(awk '$1 == "TOTAL" { sub("%", "", $10); print $10 }' "$dir/report")
echo "lines: $percent %, at least $least % wanted"
awk -v p="$percent" -v least="$least" 'BEGIN { exit !(p != "" && p + 0 >= least + 0) }'
