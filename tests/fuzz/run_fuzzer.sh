#!/bin/sh
# Runs one libFuzzer target for TEKD_FUZZ_SECONDS (20 if not set), beginning with its corpus.
#   run_fuzzer.sh TARGET DICTIONARY FINDINGS_DIRECTORY CORPUS...
# Fails if it finds anything; what it found stays in the findings directory.  The corpora are only
# read: new inputs of interest go to a directory that is removed.
set -eu
target=$1 dictionary=$2 findings=$3
shift 3
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir -p "$findings"
"$target" -max_total_time="${TEKD_FUZZ_SECONDS:-20}" -max_len=4096 -timeout=10 \
    -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 -dict="$dictionary" \
    -artifact_prefix="$findings/" "$new" "$@"
