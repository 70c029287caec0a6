//! What a result depends on beside our code: the machine and the versions of the peers.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};

use crate::bench::artifacts::Artifacts;
use crate::process::output;

pub(crate) struct Machine {
    processor: String,
    pub(crate) cores: usize,
    kernel: String,
    /// Processes that wanted to run over the last minute, when the run began; other work spoils a result.
    busy: String,
    wasmtime: String,
    wrk: String,
    rustc: String,
}

impl Machine {
    pub(crate) fn look(artifacts: &Artifacts<'_>) -> Result<Self> {
        let facts = fs::read_to_string("/proc/cpuinfo").context("failed to read the facts of the processor")?;
        let load = fs::read_to_string("/proc/loadavg").context("failed to read the load of the machine")?;
        // `wrk` shows its version with a complaint, and fails.
        let wrk = Command::new(&artifacts.wrk).arg("-v").output().context("failed to start `wrk`")?;
        Ok(Self {
            processor: fact(&facts, "model name").unwrap_or("unknown").to_owned(),
            cores: available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").context("failed to read the version of the kernel")?.trim().to_owned(),
            busy: load.split_whitespace().next().unwrap_or("unknown").to_owned(),
            wasmtime: version(&output(Command::new(&artifacts.wasmtime).arg("--version"))?),
            wrk: version(&String::from_utf8_lossy(&wrk.stdout)),
            rustc: version(&output(Command::new("rustc").arg("--version"))?),
        })
    }

    pub(crate) fn lines(&self) -> String {
        let Self { processor, cores, kernel, busy, wasmtime, wrk, rustc } = self;
        format!(
            "- Machine: {processor}, {cores} cores, Linux {kernel}, load average {busy} when the run began; load and server share the cores.\n\
             - Peers: {wasmtime} (from PyPI, its default options), plain hyper (`crates/edgeward/examples/plain_hyper.rs`); load by {wrk}; {rustc}.\n"
        )
    }
}

fn fact<'a>(facts: &'a str, name: &str) -> Option<&'a str> {
    facts.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
}

/// Program and number, the first two words.
fn version(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_versions_are_read_from_what_programs_print() {
        assert_eq!(fact("processor\t: 0\nmodel name\t: AMD EPYC\n", "model name"), Some("AMD EPYC"));
        assert_eq!(version("wasmtime 49.0.3 (f96eabaa1 2026-10-14)\n"), "wasmtime 49.0.3");
    }
}
