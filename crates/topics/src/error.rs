//! Errors of the database and of what is in it, in the words of their user.

use edgeward_durable::failed;
use edgeward_model::{EdgeError, ErrorKind};

/// SQLite's codes for an index of the log (`-shm`) that cannot be begun or made larger. It keeps no reason; the disk is full.
const INDEX_CANNOT_GROW: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_SHMSIZE, rusqlite::ffi::SQLITE_IOERR_SHMOPEN];

/// An error of the database, in the words of its user.
pub(crate) fn database(what: &str, error: rusqlite::Error) -> EdgeError {
    let Some(code) = error.sqlite_error() else { return failed(what, false).with_source(error) };
    let full = code.code == rusqlite::ErrorCode::DiskFull || INDEX_CANNOT_GROW.contains(&code.extended_code);
    if matches!(code.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) {
        return damaged("log of topics").with_source(error);
    }
    failed(what, full).with_source(error)
}

/// What was read from the log is not what was written there.
pub(crate) fn damaged(what: &str) -> EdgeError {
    EdgeError::new(
        ErrorKind::Internal,
        format!("the {what} is damaged on disk; restore it from a backup, or remove `topics.db` to begin anew"),
    )
}

/// A read that failed.
pub(crate) fn reading(error: rusqlite::Error) -> EdgeError {
    database("read from the log of topics", error)
}

/// A write that failed.
pub(crate) fn writing(error: rusqlite::Error) -> EdgeError {
    database("write to the log of topics", error)
}

/// The log was closed while somebody used it.
pub(crate) fn closed() -> EdgeError {
    EdgeError::new(ErrorKind::Unavailable, "the log of topics is closed")
}
