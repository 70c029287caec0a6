//! Errors of the database and of what is in it, in the words of their user.

use edgeward_durable::failed;
use edgeward_model::{EdgeError, ErrorKind};

/// SQLite's codes for an index of the log (`-shm`) that cannot be begun or made larger. It keeps no reason; the disk is full.
const INDEX_CANNOT_GROW: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_SHMSIZE, rusqlite::ffi::SQLITE_IOERR_SHMOPEN];

/// An error of the database, in the words of its user.
pub(crate) fn database(what: &str, error: rusqlite::Error) -> EdgeError {
    let full = match error.sqlite_error() {
        Some(error) => error.code == rusqlite::ErrorCode::DiskFull || INDEX_CANNOT_GROW.contains(&error.extended_code),
        None => false,
    };
    failed(what, full).with_source(error)
}

/// A row that cannot be read.
pub(crate) fn damaged_row(key: &str) -> EdgeError {
    damaged(&format!("row of key `{}`", key.escape_debug()))
}

/// What was read from the store is not what was written there.
pub(crate) fn damaged(what: &str) -> EdgeError {
    EdgeError::new(ErrorKind::Internal, format!("the {what} is damaged on disk; restore the store from a backup"))
}

/// A read that failed.
pub(crate) fn reading(error: rusqlite::Error) -> EdgeError {
    database("read from the store", error)
}

/// A write that failed.
pub(crate) fn writing(error: rusqlite::Error) -> EdgeError {
    database("write to the store", error)
}
