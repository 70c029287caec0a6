//! Runs other programs. A failure names the whole command line, so that it can be repeated by hand.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs to the end; what the program prints passes through.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start `{}`", line(command)))?;
    if !status.success() {
        bail!("failed to run `{}`: {status}", line(command));
    }
    Ok(())
}

/// What the program prints to standard output; its standard error is shown only when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("failed to run `{}`: {}\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("failed to read the output of `{}`", line(command)))
}

/// Whether the program can be started and ends well; nothing it prints is shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Where the PATH finds `program`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH")?, program)
}

fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_line_and_the_exit_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "failed to run `sh -c exit 3`: exit status: 3");
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let error = output(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "failed to start `no-such-program`");
    }

    #[test]
    fn a_captured_failure_carries_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo no room >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 1\nno room"), "{error}");
    }

    #[test]
    fn a_program_is_looked_for_in_each_folder_of_the_path() {
        assert_eq!(find_in(OsStr::new("/no/such/folder:/bin"), "sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_in(OsStr::new("/bin"), "no-such-program"), None);
    }
}
