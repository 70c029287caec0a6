//! `cargo xtask setup`: installs what tests and benchmarks need.
//!
//! Each part first looks whether everything is there, and then says and does nothing: a second run
//! takes a fraction of a second. On Debian it installs; elsewhere it says what is missing.

mod debian;
mod javascript;
mod machine;
mod python;

use std::process::Command;

use anyhow::Result;

use crate::process::{output, run as run_command, succeeds};
use crate::progress::Progress;
use crate::project::Project;

/// Install what tests and benchmarks need
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Also see that the programs run that benchmarks compare with
    #[arg(long)]
    pub(crate) benches: bool,
    /// Also install the compiler for functions in JavaScript (needs npm)
    #[arg(long)]
    pub(crate) js: bool,
}

pub(crate) fn run(project: &Project, progress: &Progress, options: &Options) -> Result<()> {
    progress.step("set-up");
    if debian::is_here() {
        debian::install(progress)?;
    } else {
        machine::verify()?;
    }
    python::install(project, progress)?;
    if !succeeds(project.cargo().args(["nextest", "--version"])) {
        progress.step("set-up: cargo-nextest");
        run_command(project.cargo().args(["install", "cargo-nextest", "--locked"]))?;
    }
    if options.js {
        javascript::install(project, progress)?;
    }
    if options.benches {
        let wasmtime = output(Command::new(project.venv().join("bin/wasmtime")).arg("--version"))?;
        eprintln!("benchmarks compare with {} and drive both with {}", wasmtime.trim(), machine::load_generator()?.display());
    }
    Ok(())
}
