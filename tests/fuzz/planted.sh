#!/bin/sh
# That the fuzzer works: it finds an overflow that was planted for it within a minute, from inputs
# that do not show it.
#   planted.sh TARGET DICTIONARY SEED...
set -eu
target=$1 dictionary=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/corpus"
cp "$@" "$dir/corpus"

"$target" -runs=0 "$dir/corpus" >"$dir/log" 2>&1 ||
    { cat "$dir/log"; echo "the seeds show the fault already: this proves nothing"; exit 1; }
export UBSAN_OPTIONS=print_stacktrace=1
# The seed is one that finds it in some seconds: how long chance takes would depend on what else
# the machine does.
if "$target" -seed=2 -max_total_time=60 -max_len=1024 -dict="$dictionary" -artifact_prefix="$dir/" \
    "$dir/corpus" >"$dir/log" 2>&1; then
    tail -n 5 "$dir/log"
    echo "not found within a minute"
    exit 1
fi
# A name that is longer by one is an index out of bounds before it is an overflow.
grep -m 1 -e 'ERROR: AddressSanitizer: stack-buffer-overflow' \
    -e "cp3_type_planted.c:.*index [0-9]* out of bounds" "$dir/log" ||
    { cat "$dir/log"; echo "found something else"; exit 1; }
grep -q 'wrap_read' "$dir/log"
