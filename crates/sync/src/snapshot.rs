//! What is read of a store at one moment: documents, keys, rows.

use std::sync::Arc;

use edgeward_model::{EdgeError, Object, Value, python_json};
use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::{
    error::{damaged, damaged_row, reading},
    record,
    row::{Body, Register, Slot},
    view::{self, KeyRows, Shown, Stored},
    wire::SentRow,
};

/// A document's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentHead {
    pub(crate) id: i64,
    pub(crate) name: Arc<str>,
    /// Grows with each change.
    pub version: u64,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Live keys.
    pub keys: u64,
    /// The version up to which changes are confirmed.
    pub confirmed: u64,
    /// Changes that are not confirmed.
    pub pending: u64,
    /// Changes that are kept, the pending ones with them.
    pub(crate) kept: u64,
    /// The number of the last change.
    pub(crate) number: u64,
    /// Bytes of the changes that were kept since they were last looked through.
    pub(crate) bytes: u64,
    /// Whether its replica has all rows that its base says. Else nothing of the hub's is known here but the rows that are.
    pub(crate) is_covered: bool,
}

/// When a document changed that never did.
pub(crate) const NEVER: Timestamp = Timestamp::UNIX_EPOCH;

impl DocumentHead {
    pub(crate) fn new(id: i64, name: &str) -> Self {
        Self {
            id,
            name: Arc::from(name),
            version: 0,
            updated_at: NEVER,
            keys: 0,
            confirmed: 0,
            pending: 0,
            kept: 0,
            number: from_sql(id << 40),
            bytes: 0,
            is_covered: true,
        }
    }
}

/// One moment of a [`Store`](crate::store::Store).
pub struct Snapshot<'a> {
    sql: &'a Connection,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(sql: &'a Connection) -> Self {
        Self { sql }
    }

    pub(crate) fn sql(&self) -> &'a Connection {
        self.sql
    }

    pub(crate) fn prepare(&self, statement: &str) -> Result<CachedStatement<'a>, EdgeError> {
        self.sql.prepare_cached(statement).map_err(reading)
    }

    /// The document of this name, when there is one.
    pub(crate) fn head(&self, name: &str) -> Result<Option<DocumentHead>, EdgeError> {
        let found = self
            .prepare("SELECT id, confirmed, covered FROM documents WHERE name = ?1")?
            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(reading)?;
        found.map(|(id, confirmed, is_covered)| self.load_head(id, name, from_sql(confirmed), is_covered)).transpose()
    }

    fn load_head(&self, id: i64, name: &str, confirmed: u64, is_covered: bool) -> Result<DocumentHead, EdgeError> {
        let mut head = DocumentHead { confirmed, is_covered, ..DocumentHead::new(id, name) };
        // The last change says how the document stands.
        let last = "SELECT number, version, keys, timestamp FROM changes WHERE number BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775
            ORDER BY number DESC LIMIT 1";
        let last = self.prepare(last)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, time(row, 3)?))).optional();
        if let Some((number, version, keys, updated_at)) = last.map_err(reading)? {
            head = DocumentHead { number: from_sql(number), version: from_sql(version), keys: from_sql(keys), updated_at, ..head };
        }
        let count = "SELECT count(*), coalesce(sum(type IN ('update', 'patch') AND version > ?2), 0), coalesce(sum(bytes), 0)
            FROM changes WHERE number BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775";
        let counts = self.prepare(count)?.query_row(params![id, to_sql(confirmed)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (kept, pending, bytes) = counts.map_err(reading)?;
        Ok(DocumentHead { kept: from_sql(kept), pending: from_sql(pending), bytes: from_sql(bytes), ..head })
    }

    /// Every document, by name, also those that were never changed.
    pub(crate) fn heads(&self) -> Result<Vec<DocumentHead>, EdgeError> {
        let mut statement = self.prepare("SELECT id, confirmed, covered, name FROM documents ORDER BY name")?;
        let documents = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)));
        let documents: Vec<_> = documents.map_err(reading)?.collect::<Result<_, _>>().map_err(reading)?;
        documents.into_iter().map(|(id, confirmed, is_covered, name)| self.load_head(id, &name, from_sql(confirmed), is_covered)).collect()
    }

    /// The ids and names of the documents that were made after one, by id.
    pub(crate) fn names_after(&self, id: i64) -> Result<Vec<(i64, Arc<str>)>, EdgeError> {
        let mut statement = self.prepare("SELECT id, name FROM documents WHERE id > ?1 ORDER BY id")?;
        let names = statement.query_map([id], |row| Ok((row.get(0)?, Arc::from(row.get::<_, String>(1)?)))).map_err(reading)?;
        names.collect::<Result<_, _>>().map_err(reading)
    }

    /// The documents of which not all is here that the base says.
    pub(crate) fn uncovered(&self) -> Result<Vec<Arc<str>>, EdgeError> {
        let mut statement = self.prepare("SELECT name FROM documents WHERE covered = 0 ORDER BY name")?;
        let names = statement.query_map([], |row| Ok(Arc::from(row.get::<_, String>(0)?))).map_err(reading)?;
        names.collect::<Result<_, _>>().map_err(reading)
    }

    /// The live keys of a document with their values as canonical JSON, by code point.
    pub(crate) fn values(&self, head: &DocumentHead) -> Result<Vec<(String, Arc<str>)>, EdgeError> {
        let mut found = Vec::new();
        let mut key = KeyInSight::default();
        let mut whole = None;
        let mut statement = self.prepare("SELECT key, slot, value, state FROM rows WHERE document = ?1 ORDER BY key, slot")?;
        let mut rows = statement.query([head.id]).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let next = row.get_ref(0).and_then(|text| Ok(text.as_str()?)).map_err(reading)?;
            if next != key.key {
                key.flush(&mut found)?;
                next.clone_into(&mut key.key);
            }
            let slot = row.get_ref(1).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
            let value: Option<Arc<str>> = row.get(2).map_err(reading)?;
            let state = row.get_ref(3).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
            match record::slot_of(slot).ok_or_else(|| damaged_row(&key.key))? {
                Slot::Register => {
                    key.register = value;
                    let mut kept = std::mem::take(&mut key.spare);
                    state.clone_into(&mut kept);
                    key.state = Some(kept);
                }
                Slot::Whole => whole = value,
                Slot::Floor => {}
                slot => key.rows.0.push((slot, decoded(&key.key, value, state)?)),
            }
        }
        key.flush(&mut found)?;
        match whole {
            Some(whole) => members(&whole),
            None => Ok(found),
        }
    }

    /// The whole document.
    pub(crate) fn data(&self, head: &DocumentHead) -> Result<Object, EdgeError> {
        let values = self.values(head)?.into_iter().map(|(key, text)| {
            let value = read(&key, &text)?;
            Ok((key, value))
        });
        values.collect::<Result<_, EdgeError>>().map(Object)
    }

    /// What a key shows.
    pub(crate) fn shown(&self, head: &DocumentHead, key: &str) -> Result<Option<Shown>, EdgeError> {
        match self.whole(head)?.and_then(|stored| stored.row.value().cloned()) {
            Some(whole) => {
                let found = members(&whole)?.into_iter().find(|(member, _)| member == key);
                Ok(found.map(|(_, value)| Shown { value, kind: view::Kind::Register }))
            }
            None => Ok(self.rows(head, key)?.shown()),
        }
    }

    /// The value of a live key.
    pub(crate) fn value(&self, head: &DocumentHead, key: &str) -> Result<Option<Value>, EdgeError> {
        self.shown(head, key)?.map(|shown| read(key, &shown.value)).transpose()
    }

    /// The bytes of a live key, as they were set: of a value that was set as JSON, its canonical text.
    pub(crate) fn bytes(&self, head: &DocumentHead, key: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        if let Some(stored) = self.rows(head, key)?.register()
            && let Body::Register(Register { value: Some(_), raw: Some(raw), .. }) = &stored.row.body
        {
            return Ok(Some(raw.to_vec()));
        }
        let Some(shown) = self.shown(head, key)? else { return Ok(None) };
        let value = read(key, &shown.value)?;
        Ok(Some(view::bytes_of(&value).unwrap_or_else(|| shown.value.as_bytes().to_vec())))
    }

    /// The register that is the whole document.
    pub(crate) fn whole(&self, head: &DocumentHead) -> Result<Option<Stored>, EdgeError> {
        Ok(self.rows_where(head, "", Some(&Slot::Whole))?.0.pop().map(|(_, stored)| stored))
    }

    /// All rows of a key.
    pub(crate) fn rows(&self, head: &DocumentHead, key: &str) -> Result<KeyRows, EdgeError> {
        self.rows_where(head, key, None)
    }

    fn rows_where(&self, head: &DocumentHead, key: &str, only: Option<&Slot>) -> Result<KeyRows, EdgeError> {
        let (select, slot) = match only {
            None => ("SELECT slot, value, state, seq FROM rows WHERE document = ?1 AND key = ?2 AND slot >= ?3", Vec::new()),
            Some(slot) => {
                ("SELECT slot, value, state, seq FROM rows WHERE document = ?1 AND key = ?2 AND slot = ?3", record::slot_bytes(slot))
            }
        };
        let mut statement = self.prepare(select)?;
        let mut rows = statement.query(params![head.id, key, slot]).map_err(reading)?;
        let mut found = KeyRows::default();
        while let Some(row) = rows.next().map_err(reading)? {
            let slot = row.get_ref(0).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
            let slot = record::slot_of(slot).ok_or_else(|| damaged_row(key))?;
            if only.is_none() && matches!(slot, Slot::Whole | Slot::Floor) {
                continue;
            }
            found.0.push((slot, stored(row, key)?));
        }
        Ok(found)
    }

    /// One row.
    pub(crate) fn row(&self, head: &DocumentHead, key: &str, slot: &Slot) -> Result<Option<Stored>, EdgeError> {
        Ok(self.rows_where(head, key, Some(slot))?.0.pop().map(|(_, stored)| stored))
    }

    /// The live keys that begin so, in order.
    pub(crate) fn live_keys(&self, head: &DocumentHead, prefix: &str) -> Result<Vec<String>, EdgeError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.keys_from(head, prefix, after.as_deref(), 1000)?;
            let end = page.iter().position(|key| !key.starts_with(prefix));
            let is_last = page.len() < 1000 || end.is_some();
            after = page.last().cloned();
            found.extend(page.into_iter().take(end.unwrap_or(usize::MAX)));
            if is_last {
                return Ok(found);
            }
        }
    }

    /// At most `limit` live keys at or after `from`, and after `after`, in order.
    pub(crate) fn keys_from(&self, head: &DocumentHead, from: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError> {
        if let Some(whole) = self.whole(head)?.and_then(|stored| stored.row.value().cloned()) {
            let keys = members(&whole)?.into_iter().map(|(key, _)| key);
            return Ok(keys.filter(|key| key.as_str() >= from && after.is_none_or(|after| key.as_str() > after)).take(limit).collect());
        }
        let select = "SELECT key, max(slot) FROM rows WHERE document = ?1 AND key >= ?2 AND (?3 IS NULL OR key > ?3) AND value IS NOT NULL
            GROUP BY key ORDER BY key";
        let mut statement = self.prepare(select)?;
        let mut rows = statement.query(params![head.id, from, after]).map_err(reading)?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next().map_err(reading)?
            && keys.len() < limit
        {
            let (key, slot): (String, Vec<u8>) = (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
            // Counts of an instance that was deleted show nothing.
            if slot.is_empty() || self.rows(head, &key)?.shown().is_some() {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The keys of which several rows of members have a value.
    pub(crate) fn keys_with_siblings(&self, head: &DocumentHead) -> Result<Vec<String>, EdgeError> {
        let select = "SELECT key FROM rows WHERE document = ?1 AND slot >= X'02' AND slot < X'03' AND value IS NOT NULL
            GROUP BY key HAVING count(*) > 1 ORDER BY key";
        let mut statement = self.prepare(select)?;
        let keys = statement.query_map([head.id], |row| row.get(0)).map_err(reading)?;
        keys.collect::<Result<_, _>>().map_err(reading)
    }

    /// Every row of a document, by key and slot, with what identifies it.
    pub(crate) fn each_row(
        &self,
        head: &DocumentHead,
        from: &str,
        each: impl FnMut(&str, Slot, Stored) -> Result<bool, EdgeError>,
    ) -> Result<(), EdgeError> {
        self.each_row_of(head.id, from, |_| true, each)
    }

    /// As [`Snapshot::each_row`], of the keys that are seen.
    pub(crate) fn each_row_of(
        &self,
        document: i64,
        from: &str,
        is_seen: impl Fn(&str) -> bool,
        mut each: impl FnMut(&str, Slot, Stored) -> Result<bool, EdgeError>,
    ) -> Result<(), EdgeError> {
        let mut statement =
            self.prepare("SELECT slot, value, state, seq, key FROM rows WHERE document = ?1 AND key >= ?2 ORDER BY key, slot")?;
        let mut rows = statement.query(params![document, from]).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let key = row.get_ref(4).and_then(|text| Ok(text.as_str()?)).map_err(reading)?;
            if !is_seen(key) {
                continue;
            }
            let slot = row.get_ref(0).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
            let slot = record::slot_of(slot).ok_or_else(|| damaged_row(key))?;
            if !each(key, slot, stored(row, key)?)? {
                break;
            }
        }
        Ok(())
    }

    /// Calls with each row of the feed after a place in it, in order, until it has enough.
    pub(crate) fn feed(&self, since: u64, mut each: impl FnMut(SentRow, u64) -> Result<bool, EdgeError>) -> Result<(), EdgeError> {
        let select = "SELECT rows.slot, rows.value, rows.state, rows.seq, rows.key, documents.name FROM rows
            JOIN documents ON documents.id = rows.document WHERE rows.seq > ?1 ORDER BY rows.seq";
        let mut statement = self.prepare(select)?;
        let mut rows = statement.query([to_sql(since)]).map_err(reading)?;
        while let Some(row) = rows.next().map_err(reading)? {
            let (sent, seq) = sent(row)?;
            if !each(sent, seq.ok_or_else(|| damaged("feed"))?)? {
                break;
            }
        }
        Ok(())
    }

    /// The row at a place in the feed.
    pub(crate) fn row_at(&self, seq: u64) -> Result<Option<SentRow>, EdgeError> {
        let select = "SELECT rows.slot, rows.value, rows.state, rows.seq, rows.key, documents.name FROM rows
            JOIN documents ON documents.id = rows.document WHERE rows.seq = ?1";
        let mut statement = self.prepare(select)?;
        let mut rows = statement.query([to_sql(seq)]).map_err(reading)?;
        rows.next().map_err(reading)?.map(|row| Ok(sent(row)?.0)).transpose()
    }

    /// Up to which position of its hub the tombstones of a document are forgotten.
    pub(crate) fn floor(&self, document: i64) -> Result<u64, EdgeError> {
        Ok(self.row(&DocumentHead::new(document, ""), "", &Slot::Floor)?.map_or(0, |stored| match stored.row.body {
            Body::Floor(position) => position,
            _ => 0,
        }))
    }
}

/// A key while its rows are read.
#[derive(Default)]
struct KeyInSight {
    key: String,
    /// What the register shows, and its state, which is only looked at where there are other rows.
    register: Option<Arc<str>>,
    state: Option<Vec<u8>>,
    /// Room for the next state.
    spare: Vec<u8>,
    rows: KeyRows,
}

impl KeyInSight {
    fn flush(&mut self, found: &mut Vec<(String, Arc<str>)>) -> Result<(), EdgeError> {
        let (register, state) = (self.register.take(), self.state.take());
        if self.rows.0.is_empty() {
            self.spare = state.unwrap_or_default();
            if let Some(value) = register {
                found.push((std::mem::take(&mut self.key), value));
            }
            return Ok(());
        }
        if let Some(state) = state {
            self.rows.0.insert(0, (Slot::Register, decoded(&self.key, register, &state)?));
            self.spare = state;
        }
        if let Some(shown) = self.rows.shown() {
            found.push((std::mem::take(&mut self.key), shown.value));
        }
        self.rows.0.clear();
        Ok(())
    }
}

fn decoded(key: &str, value: Option<Arc<str>>, state: &[u8]) -> Result<Stored, EdgeError> {
    Ok(Stored { row: record::decode(value, state).ok_or_else(|| damaged_row(key))?, seq: None })
}

/// A row of `slot, value, state, seq, key, name`, and its place in the feed.
pub(crate) fn sent(row: &rusqlite::Row<'_>) -> Result<(SentRow, Option<u64>), EdgeError> {
    let (key, document): (String, String) = (row.get(4).map_err(reading)?, row.get(5).map_err(reading)?);
    let slot = row.get_ref(0).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
    let slot = record::slot_of(slot).ok_or_else(|| damaged_row(&key))?;
    let Stored { row, seq } = stored(row, &key)?;
    Ok((SentRow { document: Arc::from(document), key, slot, row }, seq))
}

/// The row of `slot, value, state, seq`.
pub(crate) fn stored(row: &rusqlite::Row<'_>, key: &str) -> Result<Stored, EdgeError> {
    let value: Option<Arc<str>> = row.get(1).map_err(reading)?;
    let state = row.get_ref(2).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(reading)?;
    let seq: Option<i64> = row.get(3).map_err(reading)?;
    Ok(Stored { seq: seq.map(from_sql), ..decoded(key, value, state)? })
}

fn read(key: &str, text: &str) -> Result<Value, EdgeError> {
    python_json::read(text).map_err(|error| damaged_row(key).with_source(error))
}

/// The members of a document that is one register.
pub(crate) fn members(whole: &str) -> Result<Vec<(String, Arc<str>)>, EdgeError> {
    let Ok(Value::Object(object)) = python_json::read(whole) else { return Err(damaged("whole document")) };
    object.0.into_iter().map(|(key, value)| Ok((key, Arc::from(python_json::write(&value)?)))).collect()
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
