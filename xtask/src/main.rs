//! `cargo xtask`: sets up a machine, checks the code, runs the tests and measures.
//!
//! It is the one definition of what continuous integration runs: `.ci/run` calls `cargo xtask test`,
//! and what passes here passes there. One module for each subcommand; `project` knows the folders,
//! `process` runs other programs, `progress` heads each step.

mod bench;
mod check;
mod process;
mod progress;
mod project;
mod setup;
mod test;
mod wheel;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::progress::Progress;
use crate::project::Project;

/// Set-up, checks, tests and benchmarks of Edgeward
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    Setup(setup::Options),
    Check(check::Options),
    Test(test::Options),
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let command = Command::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: what failed is another program, and it has said why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let project = Project::locate()?;
    let progress = Progress::start();
    match command {
        Command::Setup(options) => setup::run(&project, &progress, &options),
        Command::Check(check::Options {}) => check::run(&project, &progress),
        Command::Test(options) => test::run(&project, &progress, &options),
        Command::Bench(options) => bench::run(&project, &progress, &options),
    }
}
