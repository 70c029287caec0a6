#!/bin/sh
# Builds function.wasm with wasi-sdk, where WASI_SDK_PATH or /opt/wasi-sdk has it, or else with Debian's clang and wasi-libc.
set -eu

sdk=${WASI_SDK_PATH:-/opt/wasi-sdk}
if [ -x "$sdk/bin/clang" ]; then
  set -- "$sdk/bin/clang" --target=wasm32-wasip1
elif command -v clang-22 >/dev/null; then
  # Debian's wasi-libc lies under the old name of the target.
  set -- clang-22 --target=wasm32-wasi -Wno-deprecated
else
  echo "failed to find wasi-sdk in $sdk, or clang-22; install either, on Debian: apt install clang-22 lld-22 wasi-libc libclang-rt-22-dev-wasm32" >&2
  exit 127
fi
exec "$@" -Os -flto -std=c17 -Wall -Wextra -Wl,--strip-all function.c -o function.wasm
