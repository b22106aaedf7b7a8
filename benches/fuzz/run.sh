#!/usr/bin/env bash
# Builds the fuzz targets and runs each for so many seconds:  ./run.sh SECONDS [TARGET…]
# FUZZ_SEED makes a run take the same way again. Grown inputs and finds lie in the target folder; a find that is mended becomes a seed. Exit 1 where there is one.
set -euo pipefail
cd "$(dirname "$0")"
seconds="${1:?seconds for each target}"
shift
[ $# -gt 0 ] || set -- $(ls seeds)
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Luau checks every call of its API (decision 0012).
export CXXFLAGS="${CXXFLAGS:-} -DLUAU_ENABLE_ASSERT"
RUSTC_WRAPPER="$PWD/instrument.sh" cargo build --release --locked $(printf -- ' --bin %s' "$@")
# Folders of logs are made for each input: in memory, where there is such a place.
[ -d /dev/shm ] && export TMPDIR=/dev/shm
failed=0
for target in "$@"; do
    grown="$CARGO_TARGET_DIR/fuzz/$target"
    mkdir -p "$grown" "$CARGO_TARGET_DIR/fuzz/finds"
    echo "== $target"
    "$CARGO_TARGET_DIR/release/$target" "$grown" "seeds/$target" -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -timeout=10 -rss_limit_mb=2048 \
        -max_len=4096 -use_value_profile=1 -print_final_stats=1 -artifact_prefix="$CARGO_TARGET_DIR/fuzz/finds/$target-" \
        >"$grown.out" 2>&1 || { failed=1; tail -n 40 "$grown.out"; }
    grep -E "stat::number_of_executed_units|stat::peak_rss_mb|cov:" "$grown.out" | tail -n 3
done
exit "$failed"
