//! A machine without apt: says in one message what is missing, what for, and what to install.
//!
//! Nothing is installed here, because package names differ between systems.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::{find, succeeds};

const C_COMPILER: &str = "a clang with the target wasm32-wasi, with wasm-ld, wasi-libc and the compiler-rt builtins for wasm32 \
     (for guests in C; if it is not called clang-22, name it in the variable CLANG)";
const LOAD_GENERATOR: &str = "wrk (for the benchmarks)";
const PYTHON: &str = "python3 with the modules venv and ensurepip (for the WebAssembly tools and guests in Python)";

const FAULTS: &str = "strace (for tests that make system calls fail)";
const MQTT: &str = "mosquitto_pub and mosquitto_sub (for tests of MQTT)";

/// Fails with the list of what a user has to install.
pub(crate) fn verify() -> Result<()> {
    let mut missing = Vec::new();
    if !compiles_c() {
        missing.push(C_COMPILER);
    }
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push(PYTHON);
    }
    if find("wrk").is_none() {
        missing.push(LOAD_GENERATOR);
    }
    if find("strace").is_none() {
        missing.push(FAULTS);
    }
    if find("mosquitto_pub").is_none() || find("mosquitto_sub").is_none() {
        missing.push(MQTT);
    }
    if missing.is_empty() { Ok(()) } else { bail!("{}", message(&missing)) }
}

/// The program that sends the requests of a benchmark.
pub(crate) fn load_generator() -> Result<PathBuf> {
    find("wrk").with_context(|| message(&[LOAD_GENERATOR]))
}

fn message(missing: &[&str]) -> String {
    format!("failed to find everything on this machine, which has no apt; install and run again:\n  - {}", missing.join("\n  - "))
}

/// Linking an empty program needs the compiler, the linker, the C library and the builtins at once.
fn compiles_c() -> bool {
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang-22".into());
    let child = Command::new(clang)
        .args(["--target=wasm32-wasi", "-x", "c", "-", "-o", "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that ends early says so in its exit status.
        let _ = stdin.write_all(b"int main(void) { return 0; }\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lists_each_missing_program_on_its_own_line() {
        let text = message(&[C_COMPILER, LOAD_GENERATOR]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\n  - a clang with the target wasm32-wasi, with wasm-ld"), "{text}");
        assert!(text.ends_with("\n  - wrk (for the benchmarks)"), "{text}");
    }
}
