//! The database of the log: its file, its format, and its connections.

use std::path::{Path, PathBuf};

use edgeward_durable::{create_private_file, create_private_folder, disk_error, sync_folder};
use edgeward_model::{EdgeError, ErrorKind};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::error::database;

/// Format of the database. A newer one is refused.
const FORMAT: i64 = 1;
/// "EDGT", so that another program's database is not taken for ours.
const APPLICATION_ID: i64 = 0x4544_4754;
/// Pages of SQLite's log after which it goes into the database: 4 MiB.
const LOG_PAGES: i64 = 1024;
/// Statements that each connection keeps compiled: all that there are.
const STATEMENTS: usize = 64;
/// Pages that each connection keeps in memory, in KiB.
const CACHE_KIB: i64 = 2048;

/// The database in `folder`, which is made when it is missing.
pub(super) fn open(folder: &Path) -> Result<Connection, EdgeError> {
    let failed = |error| disk_error("make the log of topics", folder, error);
    create_private_folder(folder).map_err(failed)?;
    // SQLite would make it readable by others.
    create_private_file(&path(folder)).map_err(failed)?;
    let connection = connect(folder)?;
    prepare(&connection)?;
    sync_folder(folder).map_err(failed)?;
    Ok(connection)
}

/// Another connection to the database in `folder`.
pub(crate) fn connect(folder: &Path) -> Result<Connection, EdgeError> {
    let failed = |error| database("open the log of topics", error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(folder), flags).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Else SQLite compiles many statements anew each time, as another plan might fit the values that are bound better.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    let set = |name: &str, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value);
    set("journal_mode", &"WAL")
        .and_then(|()| set("synchronous", &"FULL"))
        .and_then(|()| set("wal_autocheckpoint", &LOG_PAGES))
        .and_then(|()| set("cache_size", &-CACHE_KIB))
        .and_then(|()| set("trusted_schema", &false))
        .map_err(failed)?;
    Ok(connection)
}

/// Makes the tables of a new log, or checks the format of an old one.
pub(crate) fn prepare(connection: &Connection) -> Result<(), EdgeError> {
    let failed = |error| database("read the format of the log of topics", error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let refused = |why: String| Err(EdgeError::new(ErrorKind::Internal, format!("failed to open the log of topics: {why}")));
    match (application, format) {
        (APPLICATION_ID, FORMAT) => Ok(()),
        (APPLICATION_ID, newer) if newer > FORMAT => {
            refused(format!("it has format {newer}, and this release knows {FORMAT}; use a newer release"))
        }
        (0, 0) if tables == 0 => {
            let schema = include_str!("schema.sql");
            let made = format!(
                "BEGIN; {schema} INSERT INTO log VALUES (1, 0, 0, 0);
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT"
            );
            connection.execute_batch(&made).map_err(|error| database("make the tables of the log of topics", error))
        }
        _ => refused("it is the database of another program".to_owned()),
    }
}

/// Runs a statement that says nothing.
pub(super) fn run(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

/// A whole number as SQLite holds it.
pub(super) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

/// A whole number that SQLite held.
pub(super) fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("topics.db")
}
