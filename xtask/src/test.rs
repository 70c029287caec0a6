//! `cargo xtask test`: everything that has to pass, in the order in which a failure is cheapest.
//!
//! Guests in Rust, C and Python, and for the long tests in JavaScript, are built from source; the tests whose name begins
//! with `from_source_` find them through `EDGEWARD_GUESTS`, or build projects with the tools that are then known to work. The nats-server that set-up installs is found through `EDGEWARD_NATS_SERVER`.
//! The tests of the Python wheels run against the daemon that the others use. nextest comes last, so that its summary is the end of the log.

use std::process::Command;

use anyhow::Result;

use crate::progress::Progress;
use crate::project::Project;
use crate::{check, process, setup, wheel};

/// The folder of the guests that were built from source.
const GUESTS_VARIABLE: &str = "EDGEWARD_GUESTS";
/// The nats-server that tests of the fleet start.
const NATS_SERVER_VARIABLE: &str = "EDGEWARD_NATS_SERVER";

/// A Python with the packages of set-up.
const PYTHON_VARIABLE: &str = "EDGEWARD_PYTHON";
/// Says that set-up has run, so that a test whose program is missing fails in place of proving nothing.
const SET_UP_VARIABLE: &str = "EDGEWARD_IS_SET_UP";

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
        setup::run(project, progress, &setup::Options { js: options.long, ..setup::Options::default() })?;
    }
    check::run(project, progress)?;

    progress.step("tests of functions");
    process::run(project.cargo_of_functions().args(["test", "--locked", "--package", "readings"]))?;

    let guests = project.guests();
    for language in guest_languages(options.long) {
        progress.step(&format!("guests from source: {language}"));
        process::run(project.build_functions().arg(language).arg("--out").arg(&guests))?;
    }

    progress.step("examples in the documentation");
    process::run(project.cargo().args(["test", "--doc", "--workspace"]))?;

    progress.step("building the tests");
    process::run(project.cargo().args(nextest_arguments(options.long)).arg("--no-run"))?;

    wheel::test(project, progress, &project.binary())?;

    progress.step("tests");
    let mut tests = project.cargo();
    tests.args(nextest_arguments(options.long)).env(GUESTS_VARIABLE, &guests).env(PYTHON_VARIABLE, project.venv().join("bin/python"));
    if !options.no_setup {
        tests.env(SET_UP_VARIABLE, "1");
    }
    process::run(with_nats_server(project, &mut tests))
}

/// Names the nats-server of set-up to tests, unless the user has named another one, or it is on the path.
pub(crate) fn with_nats_server<'a>(project: &Project, tests: &'a mut Command) -> &'a mut Command {
    let nats_server = project.nats_server();
    if std::env::var_os(NATS_SERVER_VARIABLE).is_none() && nats_server.is_file() {
        tests.env(NATS_SERVER_VARIABLE, nats_server);
    }
    tests
}

/// As `functions/build.sh` calls them. JavaScript needs npm, which only the long tests ask for.
fn guest_languages(long: bool) -> &'static [&'static str] {
    if long { &["rust", "c", "python", "js"] } else { &["rust", "c", "python"] }
}

fn nextest_arguments(long: bool) -> [&'static str; 5] {
    ["nextest", "run", "--workspace", "--profile", if long { "long" } else { "complete" }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_its_own_profile_and_guests() {
        assert!(nextest_arguments(false).ends_with(&["--profile", "complete"]));
        assert!(nextest_arguments(true).ends_with(&["--profile", "long"]));
        assert!(guest_languages(true).contains(&"js") && !guest_languages(false).contains(&"js"));
    }
}
