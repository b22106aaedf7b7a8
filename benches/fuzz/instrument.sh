#!/usr/bin/env bash
# RUSTC_WRAPPER: LLVM's coverage counters for this project's crates, as libFuzzer reads them. The passes are in the stable
# compiler; other crates stay as they are, so that ordinary builds of them can be used again and a run looks at fewer counters.
set -euo pipefail
case " $* " in
*" --crate-name tidegate_"*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
