//! Where things lie: the repository, cargo's target folder and the user's cache.
//!
//! `functions/build.sh` looks for its tools in the same cache, so the names below are shared with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
    cache: PathBuf,
    cargo: OsString,
}

impl Project {
    /// Takes the folders from the environment that `cargo xtask` runs in.
    pub(crate) fn locate() -> Result<Self> {
        let here = std::env::current_dir().context("failed to find the current folder")?;
        Self::from_environment(&here, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_environment(here: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let manifest = variable("CARGO_MANIFEST_DIR").context("failed to find the repository: run this as `cargo xtask`")?;
        let root = Path::new(&manifest).parent().context("failed to find the repository above xtask")?.to_path_buf();
        let target = variable("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| here.join(folder));
        let cache = match variable("XDG_CACHE_HOME") {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(&variable("HOME").context("failed to find the cache: HOME is not set")?).join(".cache"),
        };
        let cargo = variable("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { root, target, cache: cache.join("edgeward"), cargo })
    }

    /// The repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the built guests go that tests look for.
    pub(crate) fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// The Python environment with the WebAssembly tools.
    pub(crate) fn venv(&self) -> PathBuf {
        self.cache.join("venv")
    }

    /// The Python environment that has the wheels and nothing else.
    pub(crate) fn wheel_venv(&self) -> PathBuf {
        self.cache.join("wheel-venv")
    }

    /// Where the built wheels go.
    pub(crate) fn wheels(&self) -> PathBuf {
        self.target.join("wheels")
    }

    /// The daemon, as it is built for the tests.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("debug/edgeward")
    }

    /// The NATS server that set-up installs.
    pub(crate) fn nats_server(&self) -> PathBuf {
        self.venv().join("bin/nats-server")
    }

    /// The folder with the JavaScript tool.
    pub(crate) fn npm(&self) -> PathBuf {
        self.cache.join("npm")
    }

    /// The folder of example functions.
    pub(crate) fn functions(&self) -> PathBuf {
        self.root.join("functions")
    }

    /// What the benchmarks found.
    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("benches/RESULTS.md")
    }

    /// The cargo that started this program, in the root of the repository.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        self.with_target(&mut command);
        command
    }

    /// Makes a program that starts cargo build where cargo itself would.
    pub(crate) fn with_target(&self, command: &mut Command) {
        // What cargo tells this program about itself: build scripts that look at it would run anew after each plain `cargo build`.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        // A relative folder means the one it was relative to when we were started.
        if std::env::var_os("CARGO_TARGET_DIR").is_some() {
            command.env("CARGO_TARGET_DIR", &self.target);
        }
    }

    /// The same for the workspace of the example functions.
    pub(crate) fn cargo_of_functions(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(self.functions()).env("CARGO_TARGET_DIR", self.target.join("functions"));
        command
    }

    /// The script that builds guests from source.
    pub(crate) fn build_functions(&self) -> Command {
        let mut command = Command::new(self.root.join("functions/build.sh"));
        // The script reads these as wishes of its user; here they are only ours.
        command.current_dir(&self.root).env_remove("CARGO").env_remove("RUSTC");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(variables: &[(&str, &str)]) -> Result<Project> {
        Project::from_environment(Path::new("/here"), |name| {
            variables.iter().find(|(each, _)| *each == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_target_folder_and_the_cache_have_their_usual_places() {
        let project = located(&[("CARGO_MANIFEST_DIR", "/repo/xtask"), ("HOME", "/home/me")]).unwrap();
        assert_eq!(project.guests(), Path::new("/repo/target/guests"));
        assert_eq!(project.venv(), Path::new("/home/me/.cache/edgeward/venv"));
    }

    #[test]
    fn the_environment_moves_the_target_folder_and_the_cache() {
        let moved = [("CARGO_MANIFEST_DIR", "/repo/xtask"), ("CARGO_TARGET_DIR", "built"), ("XDG_CACHE_HOME", "/cache")];
        let project = located(&moved).unwrap();
        assert_eq!(project.guests(), Path::new("/here/built/guests"));
        assert_eq!(project.npm(), Path::new("/cache/edgeward/npm"));
    }

    #[test]
    fn without_cargo_the_message_says_how_to_run_it() {
        let error = located(&[("HOME", "/home/me")]).err().unwrap();
        assert_eq!(error.to_string(), "failed to find the repository: run this as `cargo xtask`");
    }
}
