//! What happens inside one transaction: documents, rows, the outbox, and the stamps and dots of new writes.

use std::sync::Arc;

use edgeward_model::{
    EdgeError, ErrorKind, NodeId, Object, Value,
    limits::{DOCUMENT_KEYS_MAX, DOCUMENTS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    python_json,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    causality::{Base, Dot, Epoch, Origin},
    clock::{Clock, Stamp},
    error::{damaged, damaged_row, reading, writing},
    row::{Body, Register, Row},
};

/// Version of the encoding of `origin`.
const ORIGIN_VERSION: u8 = 1;
/// When a document changed that never did.
const NEVER: Timestamp = Timestamp::UNIX_EPOCH;
/// The slot of a register.
const REGISTER: &[u8] = &[];

/// The numbers of a replica that every write moves.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaState {
    clock: Clock,
    feed: u64,
    counter: u64,
}

impl ReplicaState {
    pub(crate) fn load(sql: &Connection) -> Result<Self, EdgeError> {
        let mut statement = sql
            .prepare_cached("SELECT clock, feed, coalesce((SELECT counter FROM epochs ORDER BY opening DESC LIMIT 1), 0) FROM replica")
            .map_err(reading)?;
        let (clock, feed, counter) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(reading)?;
        Ok(Self { clock: Clock::new(Stamp::from_bits(from_sql(clock))), feed: from_sql(feed), counter: from_sql(counter) })
    }

    /// Writes down an epoch before its first row.
    pub(crate) fn begin_epoch(&mut self, sql: &Connection, epoch: Epoch) -> Result<(), EdgeError> {
        // A commit of which nobody knows may have written it already, with counters that must not come twice.
        let insert = "INSERT OR IGNORE INTO epochs (epoch, opening, counter, acknowledged) SELECT ?1, coalesce(max(opening), 0) + 1, 0, 0 FROM epochs";
        sql.execute(insert, [to_sql(epoch.0)]).map_err(writing)?;
        let counter = sql.query_row("SELECT counter FROM epochs WHERE epoch = ?1", [to_sql(epoch.0)], |row| row.get(0));
        self.counter = from_sql(counter.map_err(reading)?);
        Ok(())
    }

    pub(crate) fn store(&self, sql: &Connection, epoch: Epoch) -> Result<(), EdgeError> {
        let update = |statement: &str, values: &[i64]| {
            sql.prepare_cached(statement)
                .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)))
                .map(drop)
                .map_err(writing)
        };
        update("UPDATE replica SET clock = ?1, feed = ?2", &[to_sql(self.clock.last().bits()), to_sql(self.feed)])?;
        update("UPDATE epochs SET counter = ?1 WHERE epoch = ?2", &[to_sql(self.counter), to_sql(epoch.0)])
    }
}

/// A document as its table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentHead {
    pub(crate) id: i64,
    /// Grows with each change.
    pub version: u64,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Live keys.
    pub keys: u64,
    /// Changes that are not confirmed.
    pub pending: u64,
}

impl DocumentHead {
    fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let (version, keys, pending) = (from_sql(row.get(1)?), from_sql(row.get(3)?), from_sql(row.get(4)?));
        Ok(Self { id: row.get(0)?, version, updated_at: time(row, 2)?, keys, pending })
    }
}

impl DocumentHead {
    /// The version of one more change.
    pub(crate) fn next_version(&self) -> Result<u64, EdgeError> {
        // SQLite orders versions as numbers with a sign.
        let next = self.version.checked_add(1).filter(|next| i64::try_from(*next).is_ok());
        next.ok_or_else(|| damaged("version of the document"))
    }
}

/// One transaction of a [`Store`](crate::store::Store).
pub struct Transaction<'a> {
    sql: &'a Connection,
    node: &'a NodeId,
    epoch: Epoch,
    state: &'a mut ReplicaState,
}

/// What is encoded of a row beside its value.
#[derive(Serialize, Deserialize)]
struct StoredOrigin {
    stamp: Stamp,
    origin: Origin,
    root: (Stamp, NodeId),
    instance: Option<Stamp>,
    version: u64,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(sql: &'a Connection, node: &'a NodeId, epoch: Epoch, state: &'a mut ReplicaState) -> Self {
        Self { sql, node, epoch, state }
    }

    pub(crate) fn sql(&self) -> &Connection {
        self.sql
    }

    /// The document of this name, when there is one.
    pub fn document(&self, name: &str) -> Result<Option<DocumentHead>, EdgeError> {
        let select = "SELECT id, version, updated_at, keys, pending, name FROM documents WHERE name = ?1";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        statement.query_row([name], DocumentHead::of_row).optional().map_err(reading)
    }

    /// Makes a document of this name, which there must not be. At most [`DOCUMENTS_MAX`].
    pub fn new_document(&mut self, name: &str) -> Result<DocumentHead, EdgeError> {
        let count: i64 = self.sql.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).map_err(reading)?;
        if from_sql(count) >= DOCUMENTS_MAX as u64 {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("this node has {DOCUMENTS_MAX} documents, which is the most")));
        }
        self.sql
            .execute(
                "INSERT INTO documents (name, version, updated_at, keys, pending) VALUES (?1, 0, ?2, 0, 0)",
                [name, &NEVER.to_string()],
            )
            .map_err(writing)?;
        Ok(DocumentHead { id: self.sql.last_insert_rowid(), version: 0, updated_at: NEVER, keys: 0, pending: 0 })
    }

    /// Writes down what was changed of a head.
    pub fn store_head(&mut self, head: &DocumentHead) -> Result<(), EdgeError> {
        let update = "UPDATE documents SET version = ?2, updated_at = ?3, keys = ?4, pending = ?5 WHERE id = ?1";
        let DocumentHead { id, version, updated_at, keys, pending } = head;
        self.execute(update, params![id, to_sql(*version), updated_at.to_string(), to_sql(*keys), to_sql(*pending)]).map(drop)
    }

    /// The live keys of a document with their values as canonical JSON, by code point.
    pub fn values(&self, head: &DocumentHead) -> Result<Vec<(String, Arc<str>)>, EdgeError> {
        let select = "SELECT key, value FROM rows WHERE document = ?1 AND value IS NOT NULL ORDER BY key";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        let rows = statement.query_map([head.id], |row| Ok((row.get(0)?, row.get(1)?))).map_err(reading)?;
        rows.collect::<Result<_, _>>().map_err(reading)
    }

    /// Every document that was changed at least once, by name.
    pub fn documents(&self) -> Result<Vec<(String, DocumentHead)>, EdgeError> {
        let select = "SELECT id, version, updated_at, keys, pending, name FROM documents WHERE version > 0 ORDER BY name";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        let rows = statement.query_map([], |row| Ok((row.get(5)?, DocumentHead::of_row(row)?)));
        rows.map_err(reading)?.collect::<Result<_, _>>().map_err(reading)
    }

    /// The whole document.
    pub fn data(&self, head: &DocumentHead) -> Result<Object, EdgeError> {
        let values = self.values(head)?.into_iter().map(|(key, text)| match python_json::read(&text) {
            Ok(value) => Ok((key, value)),
            Err(error) => Err(damaged_row(&key).with_source(error)),
        });
        values.collect::<Result<_, EdgeError>>().map(Object)
    }

    /// The value of a live key.
    pub fn value(&self, head: &DocumentHead, key: &str) -> Result<Option<Value>, EdgeError> {
        let select = "SELECT value FROM rows WHERE document = ?1 AND key = ?2 AND slot = ?3";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        let found: Option<Option<String>> =
            statement.query_row(params![head.id, key, REGISTER], |row| row.get(0)).optional().map_err(reading)?;
        found.flatten().map(|text| python_json::read(&text).map_err(|error| damaged_row(key).with_source(error))).transpose()
    }

    /// The register of a key.
    pub fn register(&self, head: &DocumentHead, key: &str) -> Result<Option<Row>, EdgeError> {
        let select = "SELECT value, origin FROM rows WHERE document = ?1 AND key = ?2 AND slot = ?3";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        let found: Option<(Option<Arc<str>>, Vec<u8>)> =
            statement.query_row(params![head.id, key, REGISTER], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(reading)?;
        found.map(|(value, origin)| decode(value, &origin).ok_or_else(|| damaged_row(key))).transpose()
    }

    /// Writes a key's register here and now: its value as canonical JSON, or none to delete it. Returns whether that changed
    /// anything. The caller stores the head.
    pub fn put_register(&mut self, head: &mut DocumentHead, key: &str, value: Option<&str>, millis: u64) -> Result<bool, EdgeError> {
        check(key, value)?;
        let before = self.register(head, key)?;
        let shown = before.as_ref().and_then(live_value);
        if shown.as_deref() == value {
            return Ok(false);
        }
        match (shown.is_some(), value.is_some()) {
            (false, true) if head.keys >= DOCUMENT_KEYS_MAX as u64 => {
                let message = format!("the document has {DOCUMENT_KEYS_MAX} keys, which is the most; delete one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            (false, true) => head.keys += 1,
            (true, false) => head.keys = head.keys.checked_sub(1).ok_or_else(|| damaged("number of keys of the document"))?,
            _ => {}
        }
        let exhausted = |_| EdgeError::new(ErrorKind::Internal, "the clock of this replica has come to its end");
        let stamp = self.state.clock.tick(millis).map_err(exhausted)?;
        self.state.counter = self.state.counter.checked_add(1).ok_or_else(|| damaged("counter of the epoch"))?;
        self.state.feed = self.state.feed.checked_add(1).ok_or_else(|| damaged("end of the feed"))?;
        let dot = Dot { node: self.node.clone(), epoch: self.epoch, counter: self.state.counter };
        let root = before.as_ref().and_then(root_of).unwrap_or_else(|| (stamp, self.node.clone()));
        let (base, overwrote) = match before {
            // What was not acknowledged was seen by nobody: the new row stands for both.
            Some(before) if self.is_unconfirmed(&before.origin.dot)? => (before.origin.base, before.origin.overwrote),
            Some(before) => (Base::new(), Some(before.origin.dot)),
            None => (Base::new(), None),
        };
        let stored = StoredOrigin { stamp, origin: Origin { dot, base, overwrote }, root, instance: None, version: 0 };
        let insert = "INSERT OR REPLACE INTO rows (document, key, slot, seq, value, origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.execute(insert, params![head.id, key, REGISTER, to_sql(self.state.feed), value, encode(&stored)])?;
        Ok(true)
    }

    /// Whether a row is in the outbox: written here, and not acknowledged by the hub.
    fn is_unconfirmed(&self, dot: &Dot) -> Result<bool, EdgeError> {
        let select = "SELECT acknowledged FROM epochs WHERE epoch = ?1";
        let mut statement = self.sql.prepare_cached(select).map_err(reading)?;
        let acknowledged: Option<i64> = statement.query_row([to_sql(dot.epoch.0)], |row| row.get(0)).optional().map_err(reading)?;
        Ok(acknowledged.is_some_and(|acknowledged| dot.counter > from_sql(acknowledged)))
    }

    pub(crate) fn execute(&self, statement: &str, values: impl rusqlite::Params) -> Result<usize, EdgeError> {
        self.sql.prepare_cached(statement).and_then(|mut statement| statement.execute(values)).map_err(writing)
    }
}

fn live_value(row: &Row) -> Option<Arc<str>> {
    match &row.body {
        Body::Register(register) => register.value.clone(),
        Body::Counter(_) | Body::Member(_) => None,
    }
}

fn root_of(row: &Row) -> Option<(Stamp, NodeId)> {
    match &row.body {
        Body::Register(register) => Some(register.root.clone()),
        Body::Counter(_) | Body::Member(_) => None,
    }
}

fn check(key: &str, value: Option<&str>) -> Result<(), EdgeError> {
    let shown: String = key.chars().take(64).collect();
    if key.len() > KEY_BYTES_MAX {
        let message = format!("the key `{}…` is {} bytes long, the most is {KEY_BYTES_MAX}", shown.escape_debug(), key.len());
        return Err(EdgeError::invalid(message));
    }
    let bytes = value.map_or(0, str::len);
    if bytes > VALUE_BYTES_MAX {
        let message = format!("the value of key `{}` is {bytes} bytes long as JSON, the most is {VALUE_BYTES_MAX}", shown.escape_debug());
        return Err(EdgeError::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

fn encode(stored: &StoredOrigin) -> Vec<u8> {
    postcard::to_extend(stored, vec![ORIGIN_VERSION]).expect("an origin has only numbers, texts and lists")
}

fn decode(value: Option<Arc<str>>, origin: &[u8]) -> Option<Row> {
    let (ORIGIN_VERSION, bytes) = origin.split_first().map(|(version, bytes)| (*version, bytes))? else { return None };
    let (stored, rest) = postcard::take_from_bytes::<StoredOrigin>(bytes).ok()?;
    let StoredOrigin { stamp, origin, root, instance, version } = stored;
    rest.is_empty().then_some(Row { origin, stamp, body: Body::Register(Register { value, root, instance, version }) })
}

/// A time that is stored as its RFC 3339 text, which is exact.
pub(crate) fn time(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: jiff::Error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into()))
}

/// SQLite's numbers have a sign; ours are stored by their bits.
pub(crate) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

pub(crate) fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}
