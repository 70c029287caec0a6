//! Starts a test of this program as a child that works on a store, with faults in its system calls when wanted.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const STORE: &str = "EDGEWARD_TEST_STORE";
/// The system calls that a store or a folder makes durable, or writes, with.
const CALLS: &str = "trace=fsync,fdatasync,pwrite64,ftruncate,rename,renameat2";

/// The folder that the parent gave; none when this is no child.
pub(crate) fn store() -> Option<PathBuf> {
    env::var_os(STORE).map(PathBuf::from)
}

/// Tells the parent.
pub(crate) fn tell(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\ntold: {what}").and_then(|()| out.flush()).expect("told");
}

/// What a line of a child's output tells.
pub(crate) fn told(line: &str) -> Option<&str> {
    line.strip_prefix("told: ")
}

/// This program, to run one test on this store. It makes all its system calls in one thread.
pub(crate) fn command(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("this test"));
    command.args(arguments(test)).env(STORE, folder);
    command
}

/// The same under strace. An injection is what follows `-e inject=`. Writes the calls to `log`.
pub(crate) fn traced(test: &str, folder: &Path, log: &Path, injection: Option<&str>) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", CALLS, "-o"]).arg(log);
    if let Some(injection) = injection {
        command.args(["-e", &format!("inject={injection}")]);
    }
    command.arg(env::current_exe().expect("this test")).args(arguments(test)).env(STORE, folder);
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("`cargo xtask setup` installs strace, which did not start: {error}"))
}

/// How often an undisturbed child makes this system call on a new store.
pub(crate) fn count(test: &str, call: &str) -> usize {
    let place = tempfile::tempdir().expect("temp folder");
    let log = place.path().join("calls");
    let output = run(&mut traced(test, &place.path().join("store"), &log, None));
    assert!(output.status.success(), "{output:?}");
    count_in(&log, call)
}

/// How often this system call is in a log.
pub(crate) fn count_in(log: &Path, call: &str) -> usize {
    let calls = fs::read_to_string(log).expect("the calls");
    calls.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|word| word.starts_with(&format!("{call}(")))).count()
}

fn arguments(test: &str) -> [&str; 4] {
    [test, "--exact", "--nocapture", "--test-threads=1"]
}
