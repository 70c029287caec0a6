//! A copy of a store as it is at one moment, made while others read and write it.
//!
//! The copy reads through a connection of its own, in one read transaction: it holds every write that was acknowledged before it
//! began. Nobody waits for it; the log of the store only grows until it is done.

use std::{fs, path::Path};

use edgeward_durable::{create_private_file, disk_error, sync_folder};
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
    config::DbConfig,
};

use crate::{
    error::{damaged, database},
    store::database_path,
};

/// Pages between two reports of progress: 1 MiB.
const STEP_PAGES: i32 = 256;

/// The node whose store lies in this folder.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none.
pub fn owner(folder: &Path) -> Result<NodeId, EdgeError> {
    owner_of(&look_at(folder)?)
}

/// Copies the store in the folder `from` into the folder `to`, which exists and has none, and returns the node that it belongs to
/// when the copy is on disk. Tells `progress` how many bytes are done, and of how many. What a failure leaves is for the caller
/// to remove.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no store, [`ErrorKind::Internal`] when it is damaged.
pub fn copy(from: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<NodeId, EdgeError> {
    let source = look_at(from)?;
    let path = database_path(to);
    create_private_file(&path).map_err(|error| disk_error("copy the store", &path, error))?;
    let failed = |error| database(&format!("copy the store to `{}`", path.display()), error);
    let mut copy = connect(&path).map_err(failed)?;
    // It is synced as a whole when it is complete.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
    // Without a transaction around all steps, each write of others would begin the copy anew.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let page_bytes: u64 = source.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0)).map_err(failed)?.into();
    let bytes = |pages: i32| u64::from(pages.unsigned_abs()) * page_bytes;
    let backup = Backup::new(&source, &mut copy).map_err(failed)?;
    loop {
        let step = backup.step(STEP_PAGES).map_err(failed)?;
        let pages = backup.progress();
        progress(bytes(pages.pagecount - pages.remaining), bytes(pages.pagecount));
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nothing locks a database whose log is read; should it come to that, the next step waits for it.
            _ => std::thread::yield_now(),
        }
    }
    drop(backup);
    source.execute_batch("COMMIT").map_err(failed)?;
    check(&copy)?;
    // One file without a log beside it.
    copy.execute_batch("PRAGMA journal_mode = DELETE").map_err(failed)?;
    let node = owner_of(&copy)?;
    copy.close().map_err(|(_, error)| failed(error))?;
    let synced = fs::File::open(&path).and_then(|file| file.sync_all()).and_then(|()| sync_folder(to));
    synced.map_err(|error| disk_error("copy the store", &path, error))?;
    Ok(node)
}

/// A connection that only reads, to a store that others may have open.
fn look_at(folder: &Path) -> Result<Connection, EdgeError> {
    let path = database_path(folder);
    // Never opened here: closing a file that SQLite has open in the same process would take its locks away.
    fs::metadata(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => EdgeError::new(ErrorKind::NotFound, format!("there is no store in `{}`", folder.display())),
        _ => disk_error("open the store", &path, error),
    })?;
    let failed = |error: rusqlite::Error| {
        // SQLite does not say why; readers write too, into the index of the log.
        let hint = match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => ", which needs the right to write there",
            _ => "",
        };
        database(&format!("open the store at `{}`{hint}", path.display()), error)
    };
    let connection = connect(&path).map_err(failed)?;
    // The log is left to whom the store belongs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn owner_of(connection: &Connection) -> Result<NodeId, EdgeError> {
    let owner: String = connection
        .query_row("SELECT node FROM replica", [], |row| row.get(0))
        .map_err(|error| database("read whose store it is", error))?;
    NodeId::new(&owner).map_err(|error| damaged("name of the node").with_source(error))
}

/// Looks for damage in the structure of the copy.
fn check(copy: &Connection) -> Result<(), EdgeError> {
    let found: String = copy
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| database("check the copy of the store", error))?;
    if found == "ok" { Ok(()) } else { Err(damaged("store").with_source(found)) }
}
