#!/bin/sh
# That the fuzzer works: it finds an overflow that was planted for it, from inputs that do not show
# it.
#   planted.sh TARGET DICTIONARY SEED...
set -eu
target=$1 dictionary=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Whatever random seed it takes: most find it in less than half of these runs, which are counted, so
# that a machine that is busy with other things has the time it needs.
attempts=3 runs=400000 at_most_s=80

# attempt SEED...: it fails if it found something.
attempt() {
    rm -rf "$dir/corpus"
    mkdir "$dir/corpus"
    cp "$@" "$dir/corpus"
    "$target" -runs="$runs" -max_total_time="$at_most_s" -max_len=1024 -dict="$dictionary" \
        -artifact_prefix="$dir/" "$dir/corpus" >"$dir/log" 2>&1
}

"$target" -runs=0 "$@" >"$dir/log" 2>&1 ||
    { cat "$dir/log"; echo "the seeds show the fault already: this proves nothing"; exit 1; }
export UBSAN_OPTIONS=print_stacktrace=1
while attempt "$@"; do
    grep 'Seed:' "$dir/log"
    tail -n 2 "$dir/log"
    attempts=$((attempts - 1))
    [ "$attempts" -gt 0 ] || { echo "not found"; exit 1; }
done
# A name that is longer by one is an index out of bounds before it is an overflow.
grep -m 1 -e 'ERROR: AddressSanitizer: stack-buffer-overflow' \
    -e "cp3_type_planted.c:.*index [0-9]* out of bounds" "$dir/log" ||
    { cat "$dir/log"; echo "found something else"; exit 1; }
grep -q 'wrap_read' "$dir/log"
