//! Debian packages: compilers for guests, the load generator of the benchmarks, and what tests inject faults with.
//!
//! apt is started only when a package is missing, and sudo only by a user who is not root.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{find, output, run, succeeds};
use crate::progress::Progress;

/// For guests in C, guests in Rust, the benchmarks, and faults of system calls and disks. `rust-web-llvm` holds the linker of Rust guests.
const PACKAGES: [&str; 13] = [
    "clang-22",
    "lld-22",
    "wasi-libc",
    "libclang-rt-22-dev-wasm32",
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-llvm",
    "wrk",
    "strace",
    "mosquitto-clients",
    "e2fsprogs",
    "mount",
];

/// Whether this machine installs its programs with apt.
pub(crate) fn is_here() -> bool {
    find("apt-get").is_some() && find("dpkg-query").is_some()
}

pub(crate) fn install(progress: &Progress) -> Result<()> {
    let mut missing = missing(&PACKAGES, &installed());
    // Debian splits `venv` off its own Python; another Python brings it along.
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(());
    }
    progress.step(&format!("set-up: Debian packages {}", missing.join(" ")));
    let Some(prefix) = privilege()? else {
        bail!("failed to install packages without root or sudo; run as root: apt-get install {}", missing.join(" "));
    };
    run(&mut apt_get(prefix, &["update"]))?;
    run(&mut apt_get(prefix, &[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat()))
}

/// Lines of `status package`, for those that dpkg knows.
fn installed() -> String {
    let query = Command::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Status} ${Package}\\n"]).args(PACKAGES).output();
    // It fails when it does not know one of the names, and lists the others all the same.
    query.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn missing<'a>(wanted: &[&'a str], installed: &str) -> Vec<&'a str> {
    let is_installed = |package: &str| installed.lines().any(|line| line.strip_prefix("installed ") == Some(package));
    wanted.iter().copied().filter(|package| !is_installed(package)).collect()
}

/// What a command line that changes the machine starts with; `None` when this user cannot change it.
fn privilege() -> Result<Option<&'static [&'static str]>> {
    if output(Command::new("id").arg("-u"))?.trim() == "0" {
        return Ok(Some(&[]));
    }
    Ok(find("sudo").map(|_| &["sudo"] as &[_]))
}

fn apt_get(prefix: &[&str], arguments: &[&str]) -> Command {
    // `env` because sudo does not pass our environment on.
    let words = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"], arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_dpkg_does_not_list_is_missing() {
        assert_eq!(missing(&["wrk", "lld-22"], "installed lld-22\n"), ["wrk"]);
    }

    #[test]
    fn a_package_that_was_removed_but_left_its_configuration_is_missing() {
        assert_eq!(missing(&["wrk"], "config-files wrk\n"), ["wrk"]);
    }

    #[test]
    fn a_package_whose_name_only_begins_alike_does_not_count() {
        assert_eq!(missing(&["wasi-libc"], "installed wasi-libc-extra\n"), ["wasi-libc"]);
    }

    #[test]
    fn root_calls_apt_directly_and_others_through_sudo() {
        assert_eq!(apt_get(&[], &["update"]).get_program(), "env");
        assert_eq!(apt_get(&["sudo"], &["update"]).get_program(), "sudo");
    }
}
