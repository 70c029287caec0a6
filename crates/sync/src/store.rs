//! The store of one replica: one SQLite database, one writer at a time, and one commit for all writes that wait.
//!
//! A write is durable before its caller hears of it. Who finds the database free commits for everybody who waits; the others
//! only take their results. After a commit that failed nothing is acknowledged until the database was opened anew.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering},
    },
    thread::{self, Thread},
};

use edgeward_durable::{FolderLock, create_private_file, create_private_folder, disk_error, failed, sync_folder};
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::watch;

use crate::{
    causality::Epoch,
    error::{database, reading},
    planted::{self, Bug},
    replica::LinkMemory,
    replica_state::{ReplicaState, Role},
    snapshot::{Snapshot, from_sql},
    takeover,
    transaction::{Known, Transaction},
};

/// Format of the database. A newer one is refused.
const FORMAT: i64 = 2;
/// "EDGW", so that another program's database is not taken for ours.
const APPLICATION_ID: i64 = 0x4544_4757;
/// Writes that are committed together.
const BATCH_MAX: usize = 256;
/// Pages of the log after which it goes into the database: 512 KiB.
const LOG_PAGES: i64 = 128;
/// Statements that each connection keeps compiled: all that there are.
const STATEMENTS: usize = 128;
/// Pages that each connection keeps in memory, in KiB.
const CACHE_KIB: i64 = 2048;

/// The documents of one replica. Thread-safe.
pub struct Store {
    place: Place,
    node: NodeId,
    role: Mutex<Role>,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    /// How often was committed.
    commits: watch::Sender<u64>,
    /// Reads what is committed, without waiting for a commit. A store in memory has only its writer.
    reader: Option<Mutex<Connection>>,
    /// What sessions with the hub remember of this opening.
    pub(crate) link: Mutex<LinkMemory>,
    faults: StoreFaults,
    /// Whether the next commit fails, as on a disk that does.
    #[cfg(test)]
    pub(crate) fails: std::sync::atomic::AtomicBool,
    /// Locked while the store is open.
    _lock: Option<FolderLock>,
}

/// What is injected into a store.
#[derive(Default)]
struct StoreFaults {
    skew_seconds: AtomicI64,
    refuses_writes: AtomicBool,
}

enum Place {
    Memory,
    Folder(PathBuf),
}

/// The writes that wait for a commit.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<dyn Job>>,
    /// Whether somebody commits.
    is_busy: bool,
}

struct Writer {
    /// None after a commit that failed.
    connection: Option<Connection>,
    /// Of this opening; on disk with its first write.
    epoch: Epoch,
    /// None until the first write, and after a commit that failed.
    state: Option<ReplicaState>,
    known: Known,
}

/// A write on its way. It runs inside the transaction of whoever commits it.
trait Job: Send + Sync {
    /// Runs the write. With an error, of which the caller gets the original, its changes are not to stay.
    fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EdgeError>;
    /// Says that what it did was not committed.
    fn fail(&self, error: EdgeError);
    fn turn(&self) -> &Turn;
}

struct Write<T, F> {
    work: Mutex<Option<F>>,
    result: Mutex<Option<Result<T, EdgeError>>>,
    turn: Turn,
}

/// What a thread waits for whose write is in the queue. Only who has a turn is woken: with many writers, waking all costs more than their
/// writes.
struct Turn {
    thread: Thread,
    at: AtomicU8,
}

impl Turn {
    const WAITS: u8 = 0;
    const COMMITS: u8 = 1;
    const SETTLED: u8 = 2;

    fn new() -> Self {
        Self { thread: thread::current(), at: AtomicU8::new(Self::WAITS) }
    }

    /// Waits for its turn; returns whether that is to commit.
    fn wait(&self) -> bool {
        loop {
            match self.at.load(Ordering::Acquire) {
                Self::WAITS => thread::park(),
                at => return at == Self::COMMITS,
            }
        }
    }

    fn give(&self, at: u8) {
        self.at.store(at, Ordering::Release);
        self.thread.unpark();
    }
}

impl<T: Send, F: FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send> Job for Write<T, F> {
    fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EdgeError> {
        let work = self.work.lock().take().expect("a write runs once");
        let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
            .unwrap_or_else(|_| Err(EdgeError::new(ErrorKind::Internal, "a write panicked and was taken back")));
        let copy = result.as_ref().map(drop).map_err(|error| EdgeError::new(error.kind(), error.chain()));
        *self.result.lock() = Some(result);
        copy
    }

    fn fail(&self, error: EdgeError) {
        *self.result.lock() = Some(Err(error));
    }

    fn turn(&self) -> &Turn {
        &self.turn
    }
}

impl Store {
    /// A store that ends with the process.
    pub fn in_memory(node: NodeId, epoch: Epoch) -> Result<Self, EdgeError> {
        Self::in_memory_as(node, epoch, Role::Replica)
    }

    /// A store of a hub or of a replica that ends with the process.
    pub fn in_memory_as(node: NodeId, epoch: Epoch, role: Role) -> Result<Self, EdgeError> {
        let connection = Connection::open_in_memory().map_err(|error| database("open a store in memory", error))?;
        Self::on(connection, node, epoch, role)
    }

    /// A store in memory on what this connection holds.
    pub(crate) fn on(connection: Connection, node: NodeId, epoch: Epoch, role: Role) -> Result<Self, EdgeError> {
        keep_statements(&connection)?;
        prepare(&connection, &node)?;
        Self::new(Place::Memory, node, epoch, role, connection, None, None).opened()
    }

    /// The store in this folder, which is made when it is missing. `epoch` must be a fresh one, see [`Epoch::draw`]. One process
    /// opens a folder at a time.
    pub fn open(folder: &Path, node: NodeId, epoch: Epoch) -> Result<Self, EdgeError> {
        Self::open_as(folder, node, epoch, Role::Replica)
    }

    /// The store of a hub, a standby or a replica, see [`Store::open`]. That of a standby that is opened as a hub is promoted, and that of a
    /// hub that is opened as a standby demoted.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is a hub's and is opened as a replica's, or the other way round.
    pub fn open_as(folder: &Path, node: NodeId, epoch: Epoch, role: Role) -> Result<Self, EdgeError> {
        Self::in_folder(folder, node, epoch, role)?.opened()
    }

    /// The store in this folder as what it is, a hub's, a standby's or a replica's; a new one is of `role`. See [`Store::open`].
    pub fn open_as_it_is(folder: &Path, node: NodeId, epoch: Epoch, role: Role) -> Result<Self, EdgeError> {
        let store = Self::in_folder(folder, node, epoch, role)?;
        if let Some(role) = store.read(ReplicaState::stored_role)? {
            *store.role.lock() = role;
        }
        Ok(store)
    }

    fn in_folder(folder: &Path, node: NodeId, epoch: Epoch, role: Role) -> Result<Self, EdgeError> {
        let failed = |error| disk_error("make the store", folder, error);
        create_private_folder(folder).map_err(failed)?;
        let lock = FolderLock::take(folder, "documents.lock")?;
        // SQLite would make it readable by others.
        create_private_file(&database_path(folder)).map_err(failed)?;
        let connection = connect(folder)?;
        prepare(&connection, &node)?;
        sync_folder(folder).map_err(failed)?;
        let reader = connect(folder)?;
        Ok(Self::new(Place::Folder(folder.to_owned()), node, epoch, role, connection, Some(reader), Some(lock)))
    }

    fn new(
        place: Place,
        node: NodeId,
        epoch: Epoch,
        role: Role,
        writer: Connection,
        reader: Option<Connection>,
        lock: Option<FolderLock>,
    ) -> Self {
        Self {
            place,
            node,
            role: Mutex::new(role),
            queue: Mutex::default(),
            writer: Mutex::new(Writer { connection: Some(writer), epoch, state: None, known: Known::default() }),
            commits: watch::Sender::new(0),
            reader: reader.map(Mutex::new),
            link: Mutex::default(),
            faults: StoreFaults::default(),
            #[cfg(test)]
            fails: std::sync::atomic::AtomicBool::new(false),
            _lock: lock,
        }
    }

    /// Makes it what it was opened as, when it was something else.
    fn opened(self) -> Result<Self, EdgeError> {
        let role = self.role();
        let before = self.read(ReplicaState::stored_role)?;
        match (before, role) {
            (Some(Role::Standby), Role::Hub) => self.promote()?,
            (Some(Role::Hub), Role::Standby) => self.demote()?,
            (Some(Role::Hub), Role::Replica) => {
                return Err(EdgeError::new(
                    ErrorKind::Conflict,
                    "failed to open the store: it is that of a hub; open it as a hub or as a standby",
                ));
            }
            (Some(Role::Replica), Role::Hub) => {
                let why = "failed to open the store: it is that of a replica; open it as a standby first, so that it follows the hub";
                return Err(EdgeError::new(ErrorKind::Conflict, why));
            }
            _ => {}
        }
        Ok(self)
    }

    /// Makes this standby the hub: a [`Hub`](crate::Hub) on it may then be made. Whoever calls it holds the lease, and drops the session before. It costs by the
    /// number of rows.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is no standby, has not caught up with a hub once, or has writes that no hub has taken; those of the disk.
    /// Then nothing is changed.
    pub fn promote(&self) -> Result<(), EdgeError> {
        self.write(takeover::promote)?;
        *self.role.lock() = Role::Hub;
        Ok(())
    }

    /// Makes this hub a standby of another one: a [`ReplicaSession`](crate::ReplicaSession) on it gives that one what it lacks. What a
    /// [`Hub`](crate::Hub) on it is still asked fails.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is no hub; those of the disk. Then nothing is changed.
    pub fn demote(&self) -> Result<(), EdgeError> {
        self.write(takeover::demote)?;
        *self.link.lock() = LinkMemory::default();
        *self.role.lock() = Role::Standby;
        Ok(())
    }

    /// Whether a write made now claims to have seen less than was applied: within a pull of several answers.
    #[cfg(test)]
    pub(crate) fn is_within_pull(&self) -> bool {
        let is_less = self.write(|transaction| {
            let state = &transaction.state;
            Ok(!state.is_hub() && state.base().entries() != state.link.base.entries())
        });
        is_less.unwrap_or(false)
    }

    /// Whose replica this is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// What this store is to others.
    pub fn role(&self) -> Role {
        *self.role.lock()
    }

    /// What time it is for what is written here: the wall clock, unless a fault says otherwise.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        match self.faults.skew_seconds.load(Ordering::Relaxed) {
            0 => now,
            skew => now.checked_add(SignedDuration::from_secs(skew)).unwrap_or(now),
        }
    }

    /// Makes its clock wrong by so many seconds, ahead when positive; the machine's stays as it is. With 0 it is right again. For experiments.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.faults.skew_seconds.store(seconds, Ordering::Relaxed);
    }

    /// Refuses what is to be written from now on, as if there were no room, or takes it again. For experiments.
    pub fn refuse_writes(&self, refuses: bool) {
        self.faults.refuses_writes.store(refuses, Ordering::Relaxed);
    }

    /// Changes with each commit that wrote something. Who watches a document looks at its version then: nothing is missed, whatever comes between.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Rows that were written here and that no hub has acknowledged.
    pub fn unsent(&self) -> Result<u64, EdgeError> {
        self.read(|snapshot| {
            let count = snapshot.prepare("SELECT count(*) FROM rows WHERE seq IS NOT NULL")?.query_row([], |row| row.get(0));
            count.map(from_sql).map_err(reading)
        })
    }

    /// Does `work` in one transaction and returns when it is durable. An error of `work` takes its changes back, and only
    /// those. Blocks for as long as the disk takes.
    pub(crate) fn write<T, F>(&self, work: F) -> Result<T, EdgeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send + 'static,
    {
        if self.faults.refuses_writes.load(Ordering::Relaxed) {
            return Err(failed("write to the store", true).with_source(std::io::Error::other("an injected fault says so")));
        }
        let write = Arc::new(Write { work: Mutex::new(Some(work)), result: Mutex::new(None), turn: Turn::new() });
        let job: Arc<dyn Job> = Arc::<Write<T, F>>::clone(&write);
        let mut queue = self.queue.lock();
        queue.waiting.push_back(job);
        let is_free = !std::mem::replace(&mut queue.is_busy, true);
        drop(queue);
        if is_free || write.turn.wait() {
            // Its own write is the first that waits. Others join the next batch meanwhile.
            let batch: Vec<_> = {
                let waiting = &mut self.queue.lock().waiting;
                let size = waiting.len().min(BATCH_MAX);
                waiting.drain(..size).collect()
            };
            self.commit(&mut self.writer.lock(), &batch);
            let mut queue = self.queue.lock();
            match queue.waiting.front() {
                Some(next) => next.turn().give(Turn::COMMITS),
                None => queue.is_busy = false,
            }
            drop(queue);
            for job in &batch {
                job.turn().give(Turn::SETTLED);
            }
        }
        write.result.lock().take().expect("a settled write has its result")
    }

    /// Reads what is committed.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> Result<T, EdgeError>) -> Result<T, EdgeError> {
        let mut writer;
        let mut reader;
        let connection = if let Some(connection) = &self.reader {
            reader = connection.lock();
            &mut *reader
        } else {
            writer = self.writer.lock();
            writer.connection.as_mut().ok_or_else(lost)?
        };
        // One transaction, so that all that is read is of one moment.
        run(connection, "BEGIN").map_err(|error| database("begin to read", error))?;
        let result = read(&Snapshot::new(connection));
        run(connection, "COMMIT").map_err(|error| database("end a read", error))?;
        result
    }

    fn commit(&self, writer: &mut Writer, batch: &[Arc<dyn Job>]) {
        match self.try_commit(writer, batch) {
            Ok(true) => self.commits.send_modify(|commits| *commits += 1),
            Ok(false) => {}
            Err(error) => {
                writer.state = None;
                writer.known = Known::default();
                match (&self.place, &writer.connection) {
                    // What the connection holds in memory is not known to be what is on disk.
                    (Place::Folder(_), _) => writer.connection = None,
                    (Place::Memory, Some(connection)) if !connection.is_autocommit() => {
                        // The first error is the one to tell.
                        let _ = run(connection, "ROLLBACK");
                    }
                    (Place::Memory, _) => {}
                }
                let kind = error.kind();
                let why = error.chain();
                if !planted::has(Bug::AcknowledgedBeforeCommit) {
                    for job in batch {
                        job.fail(EdgeError::new(kind, why.clone()));
                    }
                }
            }
        }
    }

    /// Returns whether anything was written.
    fn try_commit(&self, writer: &mut Writer, batch: &[Arc<dyn Job>]) -> Result<bool, EdgeError> {
        let connection = match (&mut writer.connection, &self.place) {
            (Some(connection), _) => &*connection,
            (lost, Place::Folder(folder)) => lost.insert(connect(folder)?),
            (None, Place::Memory) => return Err(lost()),
        };
        let failed = |error| database("write to the store", error);
        let before = connection.total_changes();
        run(connection, "BEGIN IMMEDIATE").map_err(failed)?;
        let state = match &mut writer.state {
            Some(state) => state,
            none => none.insert(ReplicaState::load(connection, self.role(), writer.epoch)?),
        };
        state.begin_epoch(connection)?;
        for job in batch {
            // One write alone needs no way back of its own.
            let alone = batch.len() == 1;
            if !alone {
                run(connection, "SAVEPOINT job").map_err(failed)?;
            }
            let before = (!alone).then(|| state.clone());
            let mut transaction = Transaction::new(connection, &self.node, state, &mut writer.known);
            match job.run(&mut transaction) {
                Ok(()) => {
                    transaction.keep();
                    if !alone {
                        run(connection, "RELEASE job").map_err(failed)?;
                    }
                }
                // On a full or failing disk SQLite took the whole transaction back, with what others wrote in it.
                Err(error) if connection.is_autocommit() => return Err(error),
                Err(_) => {
                    let Some(before) = before else {
                        run(connection, "ROLLBACK").map_err(failed)?;
                        // What was written of the epoch went with it.
                        writer.state = None;
                        return Ok(false);
                    };
                    *state = before;
                    run(connection, "ROLLBACK TO job").and_then(|()| run(connection, "RELEASE job")).map_err(failed)?;
                }
            }
        }
        state.store(connection)?;
        #[cfg(test)]
        self.fail_when_told(connection)?;
        writer.epoch = state.epoch;
        run(connection, "COMMIT").map_err(failed)?;
        Ok(connection.total_changes() != before)
    }
}

#[cfg(test)]
impl Store {
    fn fail_when_told(&self, connection: &Connection) -> Result<(), EdgeError> {
        if !self.fails.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        if crate::planted::has(crate::planted::Bug::SendBeforeDurable) {
            self.link.lock().send_what_is_not_durable(connection)?;
        }
        Err(EdgeError::new(ErrorKind::Internal, "the disk was told to fail"))
    }

    /// The database of a store in memory, as a restart finds it.
    pub(crate) fn into_connection(self) -> Connection {
        self.writer.into_inner().connection.expect("a store in memory keeps its connection")
    }

    /// A copy of a store in memory.
    pub(crate) fn copy(&self) -> Connection {
        let mut copy = Connection::open_in_memory().expect("opens");
        let writer = self.writer.lock();
        let source = writer.connection.as_ref().expect("a store in memory keeps its connection");
        rusqlite::backup::Backup::new(source, &mut copy).expect("begins").step(-1).expect("copies");
        copy
    }
}

fn run(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder = match &self.place {
            Place::Memory => None,
            Place::Folder(folder) => Some(folder),
        };
        f.debug_struct("Store").field("node", &self.node).field("folder", &folder).finish_non_exhaustive()
    }
}

pub(crate) fn database_path(folder: &Path) -> PathBuf {
    folder.join("documents.sqlite3")
}

fn connect(folder: &Path) -> Result<Connection, EdgeError> {
    let path = database_path(folder);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(|error| database("open the store", error))?;
    keep_statements(&connection)?;
    let set = |name: &str, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value);
    set("journal_mode", &"WAL")
        .and_then(|()| set("synchronous", &"FULL"))
        .and_then(|()| set("wal_autocheckpoint", &LOG_PAGES))
        .and_then(|()| set("cache_size", &-CACHE_KIB))
        .and_then(|()| set("trusted_schema", &false))
        .map_err(|error| database("open the store", error))?;
    Ok(connection)
}

/// Keeps statements as they were compiled. Else SQLite compiles many of them anew each time, as another plan might fit the values that are bound
/// better; without statistics none does.
fn keep_statements(connection: &Connection) -> Result<(), EdgeError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
    kept.map(drop).map_err(|error| database("open the store", error))
}

/// Makes the tables of a new store, or checks those of an old one.
fn prepare(connection: &Connection, node: &NodeId) -> Result<(), EdgeError> {
    let failed = |error| database("read the format of the store", error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if (application, format) == (APPLICATION_ID, 1) {
        connection.execute_batch(include_str!("store/from_1.sql")).map_err(|error| database("bring the store to a newer format", error))?;
        return prepare(connection, node);
    }
    let refused = |why: String| Err(EdgeError::new(ErrorKind::Internal, format!("failed to open the store: {why}")));
    match (application, format) {
        (APPLICATION_ID, FORMAT) => {
            let owner: String = connection.query_row("SELECT node FROM replica", [], |row| row.get(0)).map_err(failed)?;
            if owner != node.as_str() {
                return refused(format!("it is the store of node `{owner}`, not of `{node}`; choose another folder"));
            }
            Ok(())
        }
        (APPLICATION_ID, newer) if newer > FORMAT => {
            refused(format!("it has format {newer}, and this release knows {FORMAT}; use a newer release"))
        }
        (0, 0) if tables == 0 => {
            let schema = include_str!("store/schema.sql");
            let made = format!("BEGIN; {schema} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};");
            connection
                .execute_batch(&made)
                .and_then(|()| {
                    connection.execute("INSERT INTO replica (one, node, clock, feed, link) VALUES (1, ?1, 0, 0, X'')", [node.as_str()])
                })
                .and_then(|_| connection.execute_batch("COMMIT"))
                .map_err(|error| database("make the tables of the store", error))
        }
        _ => refused("it is the database of another program".to_owned()),
    }
}

fn lost() -> EdgeError {
    EdgeError::new(ErrorKind::Internal, "a store in memory lost its data")
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, params};

    use super::*;

    #[test]
    fn a_statement_is_compiled_once_whatever_is_bound() {
        let node = NodeId::new("node").expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        let stores = [
            Store::in_memory(node.clone(), Epoch(1)).expect("opens"),
            Store::open(&folder.path().join("store"), node, Epoch(1)).expect("opens"),
        ];
        for store in stores {
            let compiled_anew = store.read(|snapshot| {
                let mut compiled_anew = 0;
                for number in 0..3 {
                    let mut statement =
                        snapshot.prepare("SELECT key FROM rows WHERE document = ?1 AND key >= ?2 ORDER BY key").expect("compiles");
                    statement.exists(params![number, number.to_string()]).expect("reads");
                    compiled_anew = statement.get_status(StatementStatus::RePrepare);
                }
                Ok(compiled_anew)
            });
            assert_eq!(compiled_anew.expect("reads"), 0);
        }
    }
}
