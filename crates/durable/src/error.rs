//! Errors of the disk, in the words of its user. A full disk is told apart, as its user can do something about it.

use std::{io, path::Path};

use edgeward_model::{EdgeError, ErrorKind};

/// The error of who failed to do `what`, which is a verb with its object.
pub fn failed(what: &str, disk_is_full: bool) -> EdgeError {
    if disk_is_full {
        EdgeError::new(ErrorKind::Unavailable, format!("failed to {what}: the disk is full; free some space"))
    } else {
        EdgeError::new(ErrorKind::Internal, format!("failed to {what}"))
    }
}

/// The error of who failed to do `what` with the file or folder at `path`.
pub fn disk_error(what: &str, path: &Path, error: io::Error) -> EdgeError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    failed(&format!("{what} at `{}`", path.display()), full).with_source(error)
}
