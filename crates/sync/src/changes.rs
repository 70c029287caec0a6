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

/// A change with its number: its document's above, and below that how many changes there were of it.
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
        "INSERT INTO changes (number, type, version, keys, timestamp, coalesced, bytes, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (number, keys) = (to_sql(numbered.number), to_sql(head.keys));
    transaction
        .execute(insert, params![number, r#type, to_sql(*version), keys, timestamp.to_string(), to_sql(*coalesced), to_sql(bytes), text])?;
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
    let count = "SELECT count(*) FROM changes WHERE number BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775
        AND version > ?2 AND type IN ('update', 'patch')";
    let pending = transaction.prepare(count)?.query_row(params![head.id, to_sql(confirmed)], |row| row.get(0));
    head.pending = from_sql(pending.map_err(reading)?);
    trim(transaction, head)
}

/// Forgets the oldest of what is confirmed.
fn trim(transaction: &Transaction<'_>, head: &mut DocumentHead) -> Result<(), EdgeError> {
    let confirmed = "number BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775 AND NOT (type IN ('update', 'patch') AND version > ?2)";
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
        let sizes = format!("SELECT number, bytes FROM changes WHERE {confirmed} ORDER BY number DESC");
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

/// Past the bound, the older half becomes one change, as far as one can say it: the next time is far away then. Nothing is dropped:
/// a change counts those that it stands for.
fn coalesce(transaction: &mut Transaction<'_>, head: &mut DocumentHead) -> Result<(), EdgeError> {
    let newer = head.pending.min(PENDING_CHANGES_MAX as u64) / 2;
    let older = numbered(transaction, head, true, head.pending - newer)?;
    let mut last = older.last().map_or(0, |last| last.number);
    let mut gone = older.len() as u64;
    let mut kept: Vec<Numbered> = Vec::new();
    for change in older {
        match kept.last_mut() {
            Some(earlier) if can_join(&earlier.change, &change.change) => join(earlier, change),
            _ => kept.push(change),
        }
    }
    if kept.len() as u64 > newer.max(1) {
        // Too little could be said in one: the newest led to the state of now, which says all there is.
        let all = numbered(transaction, head, true, u64::MAX)?;
        (last, gone) = (head.number, all.len() as u64);
        let coalesced = all.iter().fold(0_u64, |sum, each| sum.saturating_add(each.change.coalesced).saturating_add(1)).saturating_sub(1);
        let data = transaction.data(head)?;
        let whole =
            |Numbered { number, change }| Numbered { number, change: Change { r#type: UPDATE.to_owned(), data, coalesced, ..change } };
        kept = all.into_iter().next_back().map(whole).into_iter().collect();
    }
    let delete = "DELETE FROM changes WHERE number BETWEEN ?1 << 40 AND ?3 AND type IN ('update', 'patch') AND version > ?2";
    transaction.execute(delete, params![head.id, to_sql(head.confirmed), to_sql(last)])?;
    head.kept = head.kept.saturating_sub(gone);
    head.pending = head.pending.saturating_sub(gone).saturating_add(kept.len() as u64);
    kept.iter().try_for_each(|change| insert(transaction, head, change))?;
    head.bytes = 0;
    Ok(())
}

/// Whether one change can say what two do.
fn can_join(earlier: &Change, later: &Change) -> bool {
    later.r#type == UPDATE || earlier.r#type == UPDATE || merge_patch::can_compose(&earlier.data, &later.data)
}

/// Makes one change that does what two do, one after the other.
fn join(earlier: &mut Numbered, later: Numbered) {
    let Numbered { number, change: Change { r#type, version, data, timestamp, coalesced } } = later;
    let both = &mut earlier.change;
    if r#type == UPDATE {
        // A whole state says all there is.
        (both.r#type, both.data) = (r#type, data);
    } else if both.r#type == UPDATE {
        both.data = merge_patch::apply_object(std::mem::take(&mut both.data), &data);
    } else {
        merge_patch::compose(&mut both.data, data);
    }
    (earlier.number, both.version, both.timestamp) = (number, version, timestamp);
    both.coalesced = both.coalesced.saturating_add(coalesced).saturating_add(1);
}

/// The changes of a document that are not confirmed, oldest first.
pub(crate) fn pending(snapshot: &Snapshot<'_>, head: &DocumentHead) -> Result<Vec<Change>, EdgeError> {
    Ok(numbered(snapshot, head, true, u64::MAX)?.into_iter().map(|numbered| numbered.change).collect())
}

/// The changes of a document that are kept, oldest first.
pub(crate) fn history(snapshot: &Snapshot<'_>, head: &DocumentHead) -> Result<Vec<Change>, EdgeError> {
    Ok(numbered(snapshot, head, false, u64::MAX)?.into_iter().map(|numbered| numbered.change).collect())
}

fn numbered(snapshot: &Snapshot<'_>, head: &DocumentHead, only_pending: bool, most: u64) -> Result<Vec<Numbered>, EdgeError> {
    let select = "SELECT number, type, version, data, timestamp, coalesced FROM changes
        WHERE number BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775 AND (NOT ?3 OR (type IN ('update', 'patch') AND version > ?2)) ORDER BY number LIMIT ?4";
    let mut statement = snapshot.prepare(select)?;
    let mut rows =
        statement.query(params![head.id, to_sql(head.confirmed), only_pending, to_sql(most.min(i64::MAX as u64))]).map_err(reading)?;
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
