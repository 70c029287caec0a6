//! The binary `edgeward`: parses the command line, sets up tracing, dispatches, and ends with the exit code.

mod api;
mod artifact;
mod cli;
mod client;
mod commands;
mod crash;
mod daemon;
mod data_dir;
mod exit;
mod heartbeat;
mod input;
mod language;
mod listen;
mod mcp;
mod node_process;
mod notify;
mod otlp;
mod project;
mod resilience;
mod rollout;
mod signals;
mod strategy;
mod target;
mod terminal;
mod topics_kept;
mod trusted_keys;

use std::{io, process::ExitCode};

use clap::Parser;
use edgeward::EdgeError;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::Cli,
    exit::{Exit, Report},
    terminal::Palette,
};

/// A sandbox is some hundred small allocations; this allocator makes them cheaper than the system's. It does without huge pages, by which
/// an idle node would take half as much memory again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Environment variable that says what is traced, in the syntax of `tracing_subscriber`.
const LOG_VARIABLE: &str = "EDGEWARD_LOG";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; nobody is left to tell when the stream is closed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let json = cli.json;
    let exit = run(cli).unwrap_or_else(|error| {
        if terminal::is_closed_pipe(&error) {
            return Exit::Success;
        }
        let report = Report::of(&error);
        report.write(json);
        report.exit
    });
    exit.into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    trace_to_stderr(cli.command.log_level())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(commands::run(cli));
    // A name lookup that nobody waits for any more may still block; what the command had to finish, it has awaited.
    runtime.shutdown_background();
    exit
}

fn trace_to_stderr(level: &str) -> anyhow::Result<()> {
    let directives = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| EdgeError::invalid(format!("failed to read {LOG_VARIABLE} `{directives}`")).with_source(error))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(Palette::stderr().is_on()).init();
    Ok(())
}
