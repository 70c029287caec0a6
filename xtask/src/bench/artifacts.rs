//! The programs of a run: ours in a release build, each built when a benchmark first asks for it, and the peers.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{find, output};
use crate::project::Project;

/// Selected together for every program, and one benchmark with them, so that what they share has the same features and is built once.
const PACKAGES: [&str; 14] = [
    "--package",
    "edgeward-cli",
    "--package",
    "edgeward",
    "--package",
    "edgeward-runtime",
    "--package",
    "edgeward-sync",
    "--package",
    "edgeward-cluster",
    "--package",
    "edgeward-topics",
    "--bench",
    "backbone",
];

/// Nodes without the WebAssembly engine, so that thousands fit into one process.
const WITHOUT_ENGINE: [&str; 3] = ["--no-default-features", "--package", "edgeward"];

/// A program of ours.
struct Program {
    packages: &'static [&'static str],
    /// The kind of its target, as cargo's option, and its name.
    target: [&'static str; 2],
    path: OnceCell<PathBuf>,
}

impl Program {
    fn new(packages: &'static [&'static str], kind: &'static str, name: &'static str) -> Self {
        Self { packages, target: [kind, name], path: OnceCell::new() }
    }

    /// Where it lies, once it is built.
    fn built(&self, project: &Project) -> Result<&Path> {
        if let Some(path) = self.path.get() {
            return Ok(path);
        }
        let mut cargo = project.cargo();
        cargo.args(["build", "--release", "--message-format=json-render-diagnostics"]).args(self.packages).args(self.target);
        let name = self.target[1];
        let path = executable(&output(&mut cargo)?, name);
        let path = path.with_context(|| format!("failed to find the program `{name}` in what cargo built"))?;
        Ok(self.path.get_or_init(|| path))
    }
}

pub(crate) struct Artifacts<'a> {
    project: &'a Project,
    edgeward: Program,
    native_handler: Program,
    plain_hyper: Program,
    in_process: Program,
    documents: Program,
    fleet: Program,
    backbone: Program,
    mqtt_load: Program,
    calls: Program,
    pub(crate) nats_server: PathBuf,
    pub(crate) wasmtime: PathBuf,
    pub(crate) wrk: PathBuf,
}

impl<'a> Artifacts<'a> {
    pub(crate) fn new(project: &'a Project) -> Result<Self> {
        let wrk = find("wrk").context("failed to find `wrk`, which makes the load; run `cargo xtask setup`")?;
        let wasmtime = project.venv().join("bin/wasmtime");
        output(Command::new(&wasmtime).arg("--version")).context("failed to find `wasmtime`, the peer; run `cargo xtask setup`")?;
        Ok(Self {
            project,
            edgeward: Program::new(&PACKAGES, "--bin", "edgeward"),
            native_handler: Program::new(&PACKAGES, "--example", "native_handler"),
            plain_hyper: Program::new(&PACKAGES, "--example", "plain_hyper"),
            in_process: Program::new(&PACKAGES, "--bench", "in_process"),
            documents: Program::new(&PACKAGES, "--bench", "documents"),
            fleet: Program::new(&WITHOUT_ENGINE, "--bench", "fleet"),
            backbone: Program::new(&PACKAGES, "--bench", "backbone"),
            mqtt_load: Program::new(&PACKAGES, "--example", "mqtt_load"),
            calls: Program::new(&PACKAGES, "--bench", "calls"),
            nats_server: project.nats_server(),
            wasmtime,
            wrk,
        })
    }

    pub(crate) fn edgeward(&self) -> Result<&Path> {
        self.edgeward.built(self.project)
    }

    pub(crate) fn native_handler(&self) -> Result<&Path> {
        self.native_handler.built(self.project)
    }

    pub(crate) fn plain_hyper(&self) -> Result<&Path> {
        self.plain_hyper.built(self.project)
    }

    pub(crate) fn in_process(&self) -> Result<&Path> {
        self.in_process.built(self.project)
    }

    pub(crate) fn documents(&self) -> Result<&Path> {
        self.documents.built(self.project)
    }

    pub(crate) fn fleet(&self) -> Result<&Path> {
        self.fleet.built(self.project)
    }

    pub(crate) fn backbone(&self) -> Result<&Path> {
        self.backbone.built(self.project)
    }

    pub(crate) fn mqtt_load(&self) -> Result<&Path> {
        self.mqtt_load.built(self.project)
    }

    /// Not among what is set up, as its package starts a broker of its own.
    pub(crate) fn mosquitto() -> Result<PathBuf> {
        find("mosquitto")
            .context("failed to find `mosquitto`, the peer; install the package of this name, and stop the service that it starts")
    }

    pub(crate) fn calls(&self) -> Result<&Path> {
        self.calls.built(self.project)
    }

    /// A function that was built for everybody.
    pub(crate) fn component(&self, name: &str) -> PathBuf {
        self.project.functions().join("built").join(name).with_extension("wasm")
    }

    pub(crate) fn readings(&self, name: &str) -> PathBuf {
        self.project.functions().join("data").join(name).with_extension("csv")
    }
}

/// Where cargo put the program of this name, by its messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
        let program = message["executable"].as_str().filter(|_| message["target"]["name"] == name)?;
        Some(Path::new(program).to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_name_of_its_target() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"in_process\"},\"executable\":null}\n",
            "not a message\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"in_process\"},\"executable\":\"/built/in_process-1\"}\n",
        );
        assert_eq!(executable(messages, "in_process"), Some("/built/in_process-1".into()));
        assert_eq!(executable(messages, "other"), None);
    }
}
