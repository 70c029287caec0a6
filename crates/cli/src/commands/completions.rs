//! `edgeward completions`: the script that makes a shell complete the command line.

use clap_complete::Shell;

use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  edgeward completions bash > ~/.local/share/bash-completion/completions/edgeward
  edgeward completions zsh > ~/.zfunc/_edgeward
  edgeward completions fish > ~/.config/fish/completions/edgeward.fish";

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command for the command line `edgeward`.
pub(crate) fn run(args: &Args, edgeward: &mut clap::Command) -> anyhow::Result<()> {
    // Into memory first: the generator panics when standard output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, edgeward, "edgeward", &mut script);
    terminal::write(script)?;
    Ok(())
}
