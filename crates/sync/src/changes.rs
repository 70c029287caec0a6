//! The changes of a document: those that `confirm_sync` has not covered, for those who carry states by themselves, and a bounded
//! history of the others.
//!
//! The last one says how the document stands, so there is always one.

use edgeward_model::{
    EdgeError, Object, Value,
    limits::{CHANGES_BYTES_MAX, HISTORY_CHANGES_MAX, PENDING_CHANGES_MAX},
    python_json,
};
use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use crate::{
    error::{damaged, reading},
    merge_patch,
    snapshot::{DocumentHead, Snapshot, from_sql, time, to_sql},
    transaction::Transaction,
};

/// A local change whose data is the whole state.
pub(crate) const UPDATE: &str = "update";
/// A local change whose data is a merge patch.
pub(crate) const PATCH: &str = "patch";
/// A whole state that came from elsewhere.
pub(crate) const REMOTE: &str = "remote";
/// What other replicas changed: each member whole, `null` for one that went.
pub(crate) const MERGE: &str = "merge";

/// One change of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `update` for a whole state and `patch` for a merge patch by RFC 7396, both made here; `remote` for a whole state and `merge`
    /// for members, each whole and `null` for one that went, that came from elsewhere.
    pub r#type: String,
    /// The version that the change led to.
    pub version: u64,
    /// The whole state, or the patch.
    pub data: Object,
    /// When the change was made, or came.
    pub timestamp: Timestamp,
    /// Earlier changes that this one stands for as well, when there were too many.
    pub coalesced: u64,
}

/// A local change that no `confirm_sync` has covered.
pub type PendingChange = Change;

/// A change with its number.
struct Numbered {
    number: u64,
    change: Change,
}

/// Notes the change that led to the head's version, at its time. The caller stores the head.
pub(crate) fn add(transaction: &mut Transaction<'_>, head: &mut DocumentHead, kind: &str, data: Object) -> Result<(), EdgeError> {
    let change = Change { r#type: kind.to_owned(), version: head.version, data, timestamp: head.updated_at, coalesced: 0 };
    head.number = head.number.checked_add(1).ok_or_else(|| damaged("number of changes of the document"))?;
    insert(transaction, head, &Numbered { number: head.number, change })?;
    let is_pending = kind == UPDATE || kind == PATCH;
    head.pending = head.pending.saturating_add(u64::from(is_pending));
    let is_long = head.bytes > CHANGES_BYTES_MAX as u64;
    if head.kept - head.pending > 2 * HISTORY_CHANGES_MAX as u64 || is_long {
        trim(transaction, head)?;
    }
    if head.pending > PENDING_CHANGES_MAX as u64 || is_long {
        coalesce(transaction, head)?;
    }
    Ok(())
}

fn insert(transaction: &Transaction<'_>, head: &mut DocumentHead, numbered: &Numbered) -> Result<(), EdgeError> {
    let Change { r#type, version, data, timestamp, coalesced } = &numbered.change;
    let mut text = String::new();
    python_json::write_object(&mut text, data)?;
    let bytes = text.len() as u64;
    let insert =
        "INSERT INTO changes (document, number, type, version, keys, timestamp, coalesced, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (number, keys) = (to_sql(numbered.number), to_sql(head.keys));
    transaction
        .execute(insert, params![head.id, number, r#type, to_sql(*version), keys, timestamp.to_string(), to_sql(*coalesced), text])?;
    head.kept = head.kept.saturating_add(1);
    head.bytes = head.bytes.saturating_add(bytes);
    Ok(())
}

/// Confirms the changes up to this version, which then are history.
pub(crate) fn confirm(transaction: &mut Transaction<'_>, head: &mut DocumentHead, up_to_version: u64) -> Result<(), EdgeError> {
    let confirmed = up_to_version.min(head.version);
    if confirmed <= head.confirmed {
        return Ok(());
    }
    head.confirmed = confirmed;
    transaction.execute("UPDATE documents SET confirmed = ?2 WHERE id = ?1", params![head.id, to_sql(confirmed)])?;
    let count = "SELECT count(*) FROM changes WHERE document = ?1 AND version > ?2 AND type IN ('update', 'patch')";
    let pending = transaction.prepare(count)?.query_row(params![head.id, to_sql(confirmed)], |row| row.get(0));
    head.pending = from_sql(pending.map_err(reading)?);
    trim(transaction, head)
}

/// Forgets the oldest of what is confirmed.
fn trim(transaction: &Transaction<'_>, head: &mut DocumentHead) -> Result<(), EdgeError> {
    let confirmed = "document = ?1 AND NOT (type IN ('update', 'patch') AND version > ?2)";
    let oldest = format!("SELECT number FROM changes WHERE {confirmed} ORDER BY number DESC LIMIT 1 OFFSET ?3");
    let parameters = params![head.id, to_sql(head.confirmed), to_sql(HISTORY_CHANGES_MAX as u64)];
    let oldest = transaction.prepare(&oldest)?.query_row(parameters, |row| row.get::<_, i64>(0));
    let mut up_to = match oldest {
        Ok(number) => number,
        Err(rusqlite::Error::QueryReturnedNoRows) => 0,
        Err(error) => return Err(reading(error)),
    };
    // Of large ones fewer are kept.
    if head.bytes > CHANGES_BYTES_MAX as u64 {
        let sizes = format!("SELECT number, octet_length(data) FROM changes WHERE {confirmed} ORDER BY number DESC");
        let mut statement = transaction.prepare(&sizes)?;
        let mut rows = statement.query(params![head.id, to_sql(head.confirmed)]).map_err(reading)?;
        let mut bytes = 0_u64;
        while let Some(row) = rows.next().map_err(reading)? {
            let (number, size): (i64, i64) = (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
            bytes = bytes.saturating_add(from_sql(size));
            if bytes > CHANGES_BYTES_MAX as u64 / 2 {
                up_to = up_to.max(number);
                break;
            }
        }
        head.bytes = 0;
    }
    // The last says how the document stands.
    up_to = up_to.min(to_sql(head.number.saturating_sub(1)));
    let delete = format!("DELETE FROM changes WHERE {confirmed} AND number <= ?3");
    let gone = transaction.execute(&delete, params![head.id, to_sql(head.confirmed), up_to])?;
    head.kept = head.kept.saturating_sub(gone as u64);
    Ok(())
}

/// Past the bound, each two neighbours become one, so that the next time is far away. Nothing is dropped: a change counts those
/// that it stands for.
fn coalesce(transaction: &mut Transaction<'_>, head: &mut DocumentHead) -> Result<(), EdgeError> {
    let pending = numbered(transaction, head, true)?;
    let (before, was_last) = (pending.len() as u64, pending.last().is_some_and(|last| last.number == head.number));
    let mut kept: Vec<Numbered> = Vec::new();
    let mut changes = pending.into_iter().peekable();
    while let Some(change) = changes.next() {
        let both = changes.peek().and_then(|later| join(&change, later));
        if both.is_some() {
            changes.next();
        }
        kept.push(both.unwrap_or(change));
    }
    if kept.len() > PENDING_CHANGES_MAX {
        // No two could be said in one: the newest led to the state of now, which says all there is.
        let coalesced = kept.iter().fold(0_u64, |sum, kept| sum.saturating_add(kept.change.coalesced).saturating_add(1)).saturating_sub(1);
        let Numbered { number, change } = kept.pop().expect("there are more than the most");
        let data = transaction.data(head)?;
        kept = vec![Numbered { number, change: Change { r#type: UPDATE.to_owned(), data, coalesced, ..change } }];
    }
    debug_assert!(!was_last || kept.last().is_some_and(|last| last.number == head.number), "the last change stays the last");
    let delete = "DELETE FROM changes WHERE document = ?1 AND type IN ('update', 'patch') AND version > ?2";
    transaction.execute(delete, params![head.id, to_sql(head.confirmed)])?;
    head.kept = head.kept.saturating_sub(before);
    head.pending = kept.len() as u64;
    kept.iter().try_for_each(|change| insert(transaction, head, change))?;
    head.bytes = 0;
    Ok(())
}

/// One change that does what two do, one after the other, when one can say it.
fn join(earlier: &Numbered, later: &Numbered) -> Option<Numbered> {
    let (number, earlier, later) = (later.number, &earlier.change, &later.change);
    let (kind, data) = match (earlier.r#type.as_str(), later.r#type.as_str()) {
        // A whole state says all there is.
        (_, UPDATE) => (UPDATE, later.data.clone()),
        (UPDATE, _) => (UPDATE, merge_patch::apply_object(earlier.data.clone(), &later.data)),
        _ => (PATCH, merge_patch::compose(earlier.data.clone(), &later.data)?),
    };
    let coalesced = earlier.coalesced.saturating_add(later.coalesced).saturating_add(1);
    let change = Change { r#type: kind.to_owned(), version: later.version, data, timestamp: later.timestamp, coalesced };
    Some(Numbered { number, change })
}

/// The changes of a document that are not confirmed, oldest first.
pub(crate) fn pending(snapshot: &Snapshot<'_>, head: &DocumentHead) -> Result<Vec<Change>, EdgeError> {
    Ok(numbered(snapshot, head, true)?.into_iter().map(|numbered| numbered.change).collect())
}

/// The changes of a document that are kept, oldest first.
pub(crate) fn history(snapshot: &Snapshot<'_>, head: &DocumentHead) -> Result<Vec<Change>, EdgeError> {
    Ok(numbered(snapshot, head, false)?.into_iter().map(|numbered| numbered.change).collect())
}

fn numbered(snapshot: &Snapshot<'_>, head: &DocumentHead, only_pending: bool) -> Result<Vec<Numbered>, EdgeError> {
    let select = "SELECT number, type, version, data, timestamp, coalesced FROM changes
        WHERE document = ?1 AND (NOT ?3 OR (type IN ('update', 'patch') AND version > ?2)) ORDER BY number";
    let mut statement = snapshot.prepare(select)?;
    let mut rows = statement.query(params![head.id, to_sql(head.confirmed), only_pending]).map_err(reading)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(reading)? {
        let get = |index| row.get::<_, i64>(index).map(from_sql).map_err(reading);
        let text: String = row.get(3).map_err(reading)?;
        let Ok(Value::Object(data)) = python_json::read(&text) else { return Err(damaged("list of changes")) };
        let change = Change {
            r#type: row.get(1).map_err(reading)?,
            version: get(2)?,
            data,
            timestamp: time(row, 4).map_err(reading)?,
            coalesced: get(5)?,
        };
        changes.push(Numbered { number: get(0)?, change });
    }
    Ok(changes)
}
