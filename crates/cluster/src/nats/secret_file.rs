//! Files with secrets, which their owner alone may read.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use edgeward_durable::disk_error;
use edgeward_model::{EdgeError, ErrorKind};
use serde::{Serialize, de::DeserializeOwned};

/// What every such file says first.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

/// What the file holds; none when there is none. `what` names it in errors, such as "keys of the fleet".
///
/// # Errors
/// [`ErrorKind::Forbidden`] when others may read it, [`ErrorKind::Unavailable`] when a later release wrote it, and
/// [`ErrorKind::Internal`] when it is damaged.
pub(super) fn read<T: DeserializeOwned>(path: &Path, what: &str, version: u32) -> Result<Option<T>, EdgeError> {
    let failed = |error| disk_error(&format!("read the {what}"), path, error);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let shown = path.display();
    if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
        let message = format!(
            "the {what} in `{shown}` can be read by others; if nobody did, run `chmod 600 {shown}`, and if somebody may have, set the fleet up anew"
        );
        return Err(EdgeError::new(ErrorKind::Forbidden, message));
    }
    let damaged = |error| {
        let message = format!("the {what} in `{shown}` are damaged; restore the file from a backup");
        EdgeError::new(ErrorKind::Internal, message).with_source(error)
    };
    let found = serde_json::from_slice::<Versioned>(&bytes).map_err(damaged)?.version;
    if found > version {
        let message =
            format!("the {what} in `{shown}` are of a later release (format {found}, this one reads {version}); use that release");
        return Err(EdgeError::new(ErrorKind::Unavailable, message));
    }
    serde_json::from_slice(&bytes).map_err(damaged).map(Some)
}

/// Writes it, complete or not at all, and returns when it is on disk.
pub(super) fn write(path: &Path, what: &str, value: &impl Serialize) -> Result<(), EdgeError> {
    let bytes = serde_json::to_vec_pretty(value).expect("texts and numbers are JSON");
    edgeward_durable::write(path, &bytes).map_err(|error| disk_error(&format!("write the {what}"), path, error))
}
