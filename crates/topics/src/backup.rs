//! A copy of a log as it is at one moment, made while others write to it.
//!
//! The copy reads in one transaction, so it holds all that was acknowledged before it began, and nobody waits for it.

use std::path::{Path, PathBuf};

use edgeward_durable::{create_private_file, disk_error, sync_folder};
use edgeward_model::EdgeError;

use crate::{
    error::database,
    log::store::{connect, path, prepare},
};

/// The database of the log in this folder, which need not be there.
pub fn database_in(folder: &Path) -> PathBuf {
    path(folder)
}

/// Copies the log in the folder `from` into the folder `to`, which exists and has none. It is on disk then, as one file. Blocks.
pub fn copy(from: &Path, to: &Path) -> Result<(), EdgeError> {
    let copied = path(to);
    let failed = |error| disk_error("copy the log of topics", &copied, error);
    // SQLite would make it readable by others; into an empty file it writes.
    create_private_file(&copied).map_err(failed)?;
    let source = connect(from)?;
    prepare(&source)?;
    let target = copied.to_str().ok_or_else(|| EdgeError::invalid(format!("the folder `{}` has no name that is text", to.display())))?;
    source
        .execute("VACUUM INTO ?1", [target])
        .map_err(|error| database(&format!("copy the log of topics to `{}`", copied.display()), error))?;
    std::fs::File::open(&copied).and_then(|file| file.sync_all()).and_then(|()| sync_folder(to)).map_err(failed)
}
