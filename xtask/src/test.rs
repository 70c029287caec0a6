//! `cargo xtask test`: everything that has to pass, in the order in which a failure is cheapest.
//!
//! Guests in C and Python are built from source; tests find them through `EDGEWARD_GUESTS`.
//! nextest comes last, so that its summary is the end of the log.

use anyhow::Result;

use crate::progress::Progress;
use crate::project::Project;
use crate::{check, process, setup};

/// The folder of the guests that were built from source.
const GUESTS_VARIABLE: &str = "EDGEWARD_GUESTS";

/// Set up the machine, check the code and run all tests
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also run the tests that take minutes
    #[arg(long)]
    long: bool,
    /// Take the machine as it is: install nothing
    #[arg(long)]
    no_setup: bool,
}

pub(crate) fn run(project: &Project, progress: &Progress, options: &Options) -> Result<()> {
    if !options.no_setup {
        setup::run(project, progress, &setup::Options::default())?;
    }
    check::run(project, progress)?;

    let guests = project.guests();
    for (language, name) in [("c", "C"), ("python", "Python")] {
        progress.step(&format!("guests in {name}"));
        process::run(project.build_functions().arg(language).arg("--out").arg(&guests))?;
    }

    progress.step("examples in the documentation");
    process::run(project.cargo().args(["test", "--doc", "--workspace"]).env(GUESTS_VARIABLE, &guests))?;

    progress.step("tests");
    process::run(project.cargo().args(nextest_arguments(options.long)).env(GUESTS_VARIABLE, &guests))
}

fn nextest_arguments(long: bool) -> &'static [&'static str] {
    if long { &["nextest", "run", "--workspace", "--profile", "long"] } else { &["nextest", "run", "--workspace"] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_run_leaves_the_default_profile() {
        assert!(!nextest_arguments(false).contains(&"--profile"));
        assert!(nextest_arguments(true).ends_with(&["--profile", "long"]));
    }
}
