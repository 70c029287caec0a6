//! `cargo xtask check`: formatting, lints, documentation and the dependency rules.
//!
//! Every warning is an error here. Nothing is changed on disk but the target folder.

use anyhow::Result;

use crate::process::{run as run_command, succeeds};
use crate::progress::Progress;
use crate::project::Project;

/// Check formatting, lints, documentation and dependency rules
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(project: &Project, progress: &Progress) -> Result<()> {
    progress.step("formatting");
    run_command(project.cargo().args(["fmt", "--all", "--check"]))?;

    progress.step("lints");
    run_command(project.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;

    progress.step("lints of a runtime without WebAssembly");
    run_command(project.cargo().args(["clippy", "--package", "edgeward-runtime", "--no-default-features", "--", "-D", "warnings"]))?;

    progress.step("documentation");
    run_command(project.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;

    if succeeds(project.cargo().args(["deny", "--version"])) {
        progress.step("dependency rules");
        run_command(project.cargo().args(["deny", "check"]))
    } else {
        progress.step("dependency rules: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)");
        Ok(())
    }
}
