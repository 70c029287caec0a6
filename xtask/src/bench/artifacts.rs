//! The programs of a run: ours in a release build, and the peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{find, output};
use crate::project::Project;

/// Nodes without the WebAssembly engine, so that thousands fit into one process.
const BUILD_FLEET: [&str; 7] = ["build", "--release", "--no-default-features", "--package", "edgeward", "--bench", "fleet"];

const BUILD: [&str; 24] = [
    "build",
    "--release",
    "--package",
    "edgeward-cli",
    "--package",
    "edgeward",
    "--package",
    "edgeward-runtime",
    "--package",
    "edgeward-sync",
    "--bin",
    "edgeward",
    "--example",
    "native_handler",
    "--example",
    "plain_hyper",
    "--bench",
    "in_process",
    "--bench",
    "documents",
    "--package",
    "edgeward-cluster",
    "--bench",
    "backbone",
];

pub(crate) struct Artifacts {
    pub(crate) edgeward: PathBuf,
    pub(crate) native_handler: PathBuf,
    pub(crate) plain_hyper: PathBuf,
    pub(crate) in_process: PathBuf,
    pub(crate) documents: PathBuf,
    pub(crate) fleet: PathBuf,
    pub(crate) backbone: PathBuf,
    pub(crate) nats_server: PathBuf,
    pub(crate) wasmtime: PathBuf,
    pub(crate) wrk: PathBuf,
    /// The folder of built functions.
    functions: PathBuf,
    /// The folder of readings.
    data: PathBuf,
}

impl Artifacts {
    pub(crate) fn build(project: &Project) -> Result<Self> {
        let wrk = find("wrk").context("failed to find `wrk`, which makes the load; run `cargo xtask setup`")?;
        let wasmtime = project.venv().join("bin/wasmtime");
        output(Command::new(&wasmtime).arg("--version")).context("failed to find `wasmtime`, the peer; run `cargo xtask setup`")?;
        let messages = output(project.cargo().args(BUILD).arg("--message-format=json-render-diagnostics"))?;
        let of_fleet = output(project.cargo().args(BUILD_FLEET).arg("--message-format=json-render-diagnostics"))?;
        let built = |name| executable(&messages, name).with_context(|| format!("failed to find the program `{name}` in what cargo built"));
        Ok(Self {
            edgeward: built("edgeward")?,
            native_handler: built("native_handler")?,
            plain_hyper: built("plain_hyper")?,
            in_process: built("in_process")?,
            documents: built("documents")?,
            fleet: executable(&of_fleet, "fleet").context("failed to find the program `fleet` in what cargo built")?,
            backbone: built("backbone")?,
            nats_server: project.nats_server(),
            wasmtime,
            wrk,
            functions: project.functions().join("built"),
            data: project.functions().join("data"),
        })
    }

    pub(crate) fn component(&self, name: &str) -> PathBuf {
        self.functions.join(name).with_extension("wasm")
    }

    pub(crate) fn readings(&self, name: &str) -> PathBuf {
        self.data.join(name).with_extension("csv")
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
