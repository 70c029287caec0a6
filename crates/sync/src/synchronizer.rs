//! The specification's `EdgeSynchronizer`: one document, whole, with a version, a checksum and a list of pending changes.

use std::{path::Path, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind, NodeId, Object, SyncState, Value, limits::PENDING_CHANGES_MAX, python_json};
use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use crate::{
    causality::Epoch,
    merge_patch,
    store::Store,
    transaction::{DocumentHead, Transaction, damaged, damaged_row, from_sql, reading, to_sql},
};

/// The document of the specification's face.
const DOCUMENT: &str = "state";
/// The highest version that is taken from elsewhere: above it no room is left for own changes.
const REMOTE_VERSION_MAX: u64 = 1 << 62;
/// The node of a synchronizer that belongs to none.
const NODE: &str = "local";

/// Keeps one state, the changes of it that are not confirmed, and merges a newer one. Thread-safe: clones share it.
///
/// ```
/// use edgeward_model::{Object, SyncState};
/// use edgeward_sync::EdgeSynchronizer;
///
/// let sync = EdgeSynchronizer::new();
/// let state = sync.update_local([("temperature", 21.5)].into_iter().collect())?;
/// assert_eq!((state.version, sync.get_pending_changes()?.len()), (1, 1));
///
/// let remote = SyncState::from_data(Object::from_iter([("temperature", 19.0)]), 5)?;
/// assert!(sync.apply_remote(&remote)?);
/// sync.confirm_sync(1)?;
/// assert_eq!(sync.get_local_state()?, Some(SyncState { updated_at: remote.updated_at, ..remote }));
/// # Ok::<(), edgeward_model::EdgeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EdgeSynchronizer {
    store: Arc<Store>,
}

/// A local change that no `confirm_sync` has covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingChange {
    /// `update` for a whole state, `patch` for a merge patch by RFC 7396.
    pub r#type: String,
    /// The version that the change led to.
    pub version: u64,
    /// The whole state, or the patch.
    pub data: Object,
    /// When the change was made.
    pub timestamp: Timestamp,
    /// Earlier changes that this one stands for as well, when there were too many.
    pub coalesced: u64,
}

impl Default for EdgeSynchronizer {
    fn default() -> Self {
        Self::new()
    }
}

impl EdgeSynchronizer {
    /// An empty synchronizer that ends with the process.
    ///
    /// # Panics
    /// When the operating system gives no memory or no random number.
    pub fn new() -> Self {
        let store = Epoch::draw().and_then(|epoch| Store::in_memory(node()?, epoch));
        Self { store: Arc::new(store.expect("a database in memory opens")) }
    }

    /// The synchronizer whose state lies in this folder, which is made when it is missing. Every change is on disk when its call
    /// returns. One process opens a folder at a time.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, EdgeError> {
        Store::open(folder.as_ref(), node()?, Epoch::draw()?).map(|store| Self { store: Arc::new(store) })
    }

    /// Makes `data` the whole state: keys that it does not have are deleted. Returns the new state, one version on.
    pub fn update_local(&self, data: Object) -> Result<SyncState, EdgeError> {
        let now = Timestamp::now();
        self.store.write(move |transaction| {
            let mut head = transaction.document_or_new(DOCUMENT)?;
            let state = SyncState::from_data_at(data, head.next_version()?, millis_only(now))?;
            replace(transaction, &mut head, &state.data, now)?;
            commit_change(transaction, &head, "update", &state.data, now)?;
            Ok(state)
        })
    }

    /// Changes the state by a JSON merge patch (RFC 7396): `null` deletes a key. Returns the new state, one version on.
    pub fn patch_local(&self, patch: Object) -> Result<SyncState, EdgeError> {
        let now = Timestamp::now();
        self.store.write(move |transaction| {
            let mut head = transaction.document_or_new(DOCUMENT)?;
            for (key, value) in &patch.0 {
                let before = match value {
                    // Only a patch of a member needs what is there.
                    Value::Object(_) => transaction.value(&head, key)?,
                    _ => None,
                };
                let after = merge_patch::apply(before, value);
                let text = after.as_ref().map(python_json::write).transpose()?;
                transaction.put_register(&mut head, key, text.as_deref(), unix_millis(now))?;
            }
            commit_change(transaction, &head, "patch", &patch, now)?;
            let data = transaction.data(&head)?;
            SyncState::from_data_at(data, head.next_version()?, millis_only(now))
        })
    }

    /// Takes over a state of a higher version, whole; one of the same or a lower version changes nothing. Returns whether it was
    /// taken. It is not a pending change.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the checksum is not that of the data, or the version above 2⁶².
    pub fn apply_remote(&self, state: &SyncState) -> Result<bool, EdgeError> {
        if !state.verify() {
            let why = format!("the state of version {} is damaged: its checksum is not that of its data; fetch it again", state.version);
            return Err(EdgeError::new(ErrorKind::InvalidInput, why));
        }
        if state.version > REMOTE_VERSION_MAX {
            let why = format!("the version {} is higher than any document reaches; the most is {REMOTE_VERSION_MAX}", state.version);
            return Err(EdgeError::new(ErrorKind::InvalidInput, why));
        }
        let state = state.clone();
        self.store.write(move |transaction| {
            let mut head = transaction.document_or_new(DOCUMENT)?;
            if state.version <= head.version {
                return Ok(false);
            }
            replace(transaction, &mut head, &state.data, Timestamp::now())?;
            transaction.touch(&head, state.version, state.updated_at.as_millisecond())?;
            Ok(true)
        })
    }

    /// The local changes that are not confirmed, oldest first.
    pub fn get_pending_changes(&self) -> Result<Vec<PendingChange>, EdgeError> {
        self.store.read(|transaction| match transaction.document(DOCUMENT)? {
            Some(head) => pending(transaction, &head),
            None => Ok(Vec::new()),
        })
    }

    /// Confirms the pending changes up to this version.
    pub fn confirm_sync(&self, up_to_version: u64) -> Result<(), EdgeError> {
        self.store.write(move |transaction| {
            let Some(head) = transaction.document(DOCUMENT)? else { return Ok(()) };
            // Versions do not reach the sign.
            let up_to = i64::try_from(up_to_version).unwrap_or(i64::MAX);
            transaction.execute("DELETE FROM pending WHERE document = ?1 AND version <= ?2", params![head.id, up_to]).map(drop)
        })
    }

    /// The state, or none before the first one.
    pub fn get_local_state(&self) -> Result<Option<SyncState>, EdgeError> {
        self.store.read(|transaction| {
            let Some(head) = transaction.document(DOCUMENT)?.filter(|head| head.version > 0) else { return Ok(None) };
            let updated_at =
                Timestamp::from_millisecond(head.updated_at).map_err(|error| damaged("time of the last change").with_source(error))?;
            SyncState::from_data_at(transaction.data(&head)?, head.version, updated_at).map(Some)
        })
    }
}

fn node() -> Result<NodeId, EdgeError> {
    NodeId::new(NODE)
}

/// Makes the document what `data` says. What is the same stays untouched.
fn replace(transaction: &mut Transaction<'_>, head: &mut DocumentHead, data: &Object, now: Timestamp) -> Result<(), EdgeError> {
    for (key, _) in transaction.values(head)? {
        if !data.0.contains_key(&key) {
            transaction.put_register(head, &key, None, unix_millis(now))?;
        }
    }
    for (key, value) in &data.0 {
        transaction.put_register(head, key, Some(&python_json::write(value)?), unix_millis(now))?;
    }
    Ok(())
}

/// Moves the version on, and notes the change as pending.
fn commit_change(
    transaction: &mut Transaction<'_>,
    head: &DocumentHead,
    kind: &str,
    data: &Object,
    now: Timestamp,
) -> Result<(), EdgeError> {
    let version = head.next_version()?;
    transaction.touch(head, version, now.as_millisecond())?;
    let mut text = String::new();
    python_json::write_object(&mut text, data)?;
    let insert = "INSERT INTO pending (document, version, type, data, timestamp, coalesced) VALUES (?1, ?2, ?3, ?4, ?5, 0)";
    transaction.execute(insert, params![head.id, to_sql(version), kind, text, now.as_millisecond()])?;
    coalesce(transaction, head)
}

/// Past the bound, the newest change stands for its neighbour as well: nothing is dropped.
fn coalesce(transaction: &mut Transaction<'_>, head: &DocumentHead) -> Result<(), EdgeError> {
    let count = "SELECT count(*) FROM pending WHERE document = ?1";
    let count: i64 =
        transaction.sql().prepare_cached(count).and_then(|mut count| count.query_row([head.id], |row| row.get(0))).map_err(reading)?;
    if from_sql(count) <= PENDING_CHANGES_MAX as u64 {
        return Ok(());
    }
    let mut changes = pending_rows(transaction, head, "ORDER BY version DESC LIMIT 2")?;
    let (Some(newest), Some(neighbour)) = (changes.first().cloned(), changes.pop()) else { return Ok(()) };
    let coalesced = to_sql(newest.coalesced.saturating_add(neighbour.coalesced).saturating_add(1));
    let composed = match (newest.r#type.as_str(), neighbour.r#type.as_str()) {
        ("patch", "patch") => merge_patch::compose(neighbour.data, &newest.data),
        _ => None,
    };
    let both = match composed {
        Some(data) => PendingChange { data, ..newest },
        // The newest change led to the state of now, which says all there is.
        None => PendingChange { r#type: "update".to_owned(), data: transaction.data(head)?, ..newest },
    };
    transaction.execute("DELETE FROM pending WHERE document = ?1 AND version = ?2", params![head.id, to_sql(neighbour.version)])?;
    let update = "UPDATE pending SET type = ?3, data = ?4, coalesced = ?5 WHERE document = ?1 AND version = ?2";
    let mut text = String::new();
    python_json::write_object(&mut text, &both.data)?;
    transaction.execute(update, params![head.id, to_sql(both.version), both.r#type, text, coalesced]).map(drop)
}

fn pending(transaction: &Transaction<'_>, head: &DocumentHead) -> Result<Vec<PendingChange>, EdgeError> {
    pending_rows(transaction, head, "ORDER BY version")
}

fn pending_rows(transaction: &Transaction<'_>, head: &DocumentHead, order: &str) -> Result<Vec<PendingChange>, EdgeError> {
    let select = format!("SELECT type, version, data, timestamp, coalesced FROM pending WHERE document = ?1 {order}");
    let mut statement = transaction.sql().prepare_cached(&select).map_err(reading)?;
    let mut rows = statement.query([head.id]).map_err(reading)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(reading)? {
        let get = |index| row.get::<_, i64>(index).map_err(reading);
        let text: String = row.get(2).map_err(reading)?;
        let damaged = || damaged("list of pending changes");
        let Ok(Value::Object(data)) = python_json::read(&text) else { return Err(damaged()) };
        changes.push(PendingChange {
            r#type: row.get(0).map_err(reading)?,
            version: from_sql(get(1)?),
            data,
            timestamp: Timestamp::from_millisecond(get(3)?).map_err(|_| damaged())?,
            coalesced: from_sql(get(4)?),
        });
    }
    Ok(changes)
}

/// Milliseconds since 1970, as the clock takes them; before 1970 it is 0.
fn unix_millis(now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0)
}

/// The time as it is stored, so that a state is the same when it is read again.
fn millis_only(now: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

impl Transaction<'_> {
    /// The value of a live key.
    fn value(&self, head: &DocumentHead, key: &str) -> Result<Option<Value>, EdgeError> {
        let select = "SELECT value FROM rows WHERE document = ?1 AND key = ?2 AND slot = x''";
        let text: Option<Option<String>> = {
            use rusqlite::OptionalExtension as _;
            let mut statement = self.sql().prepare_cached(select).map_err(reading)?;
            statement.query_row(params![head.id, key], |row| row.get(0)).optional().map_err(reading)?
        };
        text.flatten().map(|text| python_json::read(&text).map_err(|error| damaged_row(key).with_source(error))).transpose()
    }

    /// The whole document.
    fn data(&self, head: &DocumentHead) -> Result<Object, EdgeError> {
        let values = self.values(head)?.into_iter().map(|(key, text)| match python_json::read(&text) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(damaged_row(&key).with_source(error)),
        });
        values.collect::<Result<_, EdgeError>>().map(Object)
    }
}
