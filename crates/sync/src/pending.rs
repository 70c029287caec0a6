//! Pending changes: what was changed here and not confirmed, for those who carry states by themselves.

use edgeward_model::{EdgeError, Object, Value, limits::PENDING_CHANGES_MAX, python_json};
use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use crate::{
    error::{damaged, reading},
    merge_patch,
    transaction::{DocumentHead, Transaction, from_sql, time, to_sql},
};

/// A change whose data is the whole state.
pub(crate) const UPDATE: &str = "update";
/// A change whose data is a merge patch.
pub(crate) const PATCH: &str = "patch";

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

/// Notes the change that led to the head's version, at its time. The caller stores the head.
pub(crate) fn add(transaction: &mut Transaction<'_>, head: &mut DocumentHead, kind: &str, data: Object) -> Result<(), EdgeError> {
    let change = PendingChange { r#type: kind.to_owned(), version: head.version, data, timestamp: head.updated_at, coalesced: 0 };
    insert(transaction, head, &change)?;
    if head.pending > PENDING_CHANGES_MAX as u64 {
        coalesce(transaction, head)?;
    }
    Ok(())
}

fn insert(transaction: &Transaction<'_>, head: &mut DocumentHead, change: &PendingChange) -> Result<(), EdgeError> {
    let PendingChange { r#type, version, data, timestamp, coalesced } = change;
    let mut text = String::new();
    python_json::write_object(&mut text, data)?;
    let insert = "INSERT INTO pending (document, version, type, data, timestamp, coalesced) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.execute(insert, params![head.id, to_sql(*version), r#type, text, timestamp.to_string(), to_sql(*coalesced)])?;
    head.pending = head.pending.saturating_add(1);
    Ok(())
}

/// Forgets the changes up to this version. The caller stores the head.
pub(crate) fn confirm(transaction: &mut Transaction<'_>, head: &mut DocumentHead, up_to_version: u64) -> Result<(), EdgeError> {
    // Versions do not reach the sign.
    let up_to = i64::try_from(up_to_version).unwrap_or(i64::MAX);
    let gone = transaction.execute("DELETE FROM pending WHERE document = ?1 AND version <= ?2", params![head.id, up_to])?;
    head.pending = head.pending.saturating_sub(gone as u64);
    Ok(())
}

/// Past the bound, each two neighbours become one, so that the next time is far away. Nothing is dropped: a change counts those
/// that it stands for.
fn coalesce(transaction: &mut Transaction<'_>, head: &mut DocumentHead) -> Result<(), EdgeError> {
    let mut kept: Vec<PendingChange> = Vec::new();
    let mut changes = list(transaction, head)?.into_iter().peekable();
    while let Some(change) = changes.next() {
        let both = changes.peek().and_then(|later| join(&change, later));
        if both.is_some() {
            changes.next();
        }
        kept.push(both.unwrap_or(change));
    }
    if kept.len() > PENDING_CHANGES_MAX {
        // No two could be said in one: the newest led to the state of now, which says all there is.
        let coalesced = kept.iter().fold(0_u64, |sum, change| sum.saturating_add(change.coalesced).saturating_add(1)).saturating_sub(1);
        let newest = kept.pop().expect("there are more than the most");
        kept = vec![PendingChange { r#type: UPDATE.to_owned(), data: transaction.data(head)?, coalesced, ..newest }];
    }
    confirm(transaction, head, u64::MAX)?;
    kept.iter().try_for_each(|change| insert(transaction, head, change))
}

/// One change that does what two do, one after the other, when one can say it.
fn join(earlier: &PendingChange, later: &PendingChange) -> Option<PendingChange> {
    let (kind, data) = match (earlier.r#type.as_str(), later.r#type.as_str()) {
        // A whole state says all there is.
        (_, UPDATE) => (UPDATE, later.data.clone()),
        (UPDATE, _) => (UPDATE, merge_patch::apply_object(earlier.data.clone(), &later.data)),
        _ => (PATCH, merge_patch::compose(earlier.data.clone(), &later.data)?),
    };
    let coalesced = earlier.coalesced.saturating_add(later.coalesced).saturating_add(1);
    Some(PendingChange { r#type: kind.to_owned(), version: later.version, data, timestamp: later.timestamp, coalesced })
}

/// The changes of a document, oldest first.
pub(crate) fn list(transaction: &Transaction<'_>, head: &DocumentHead) -> Result<Vec<PendingChange>, EdgeError> {
    let select = "SELECT type, version, data, timestamp, coalesced FROM pending WHERE document = ?1 ORDER BY version";
    let mut statement = transaction.sql().prepare_cached(select).map_err(reading)?;
    let mut rows = statement.query([head.id]).map_err(reading)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(reading)? {
        let get = |index| row.get::<_, i64>(index).map_err(reading);
        let text: String = row.get(2).map_err(reading)?;
        let Ok(Value::Object(data)) = python_json::read(&text) else { return Err(damaged("list of pending changes")) };
        changes.push(PendingChange {
            r#type: row.get(0).map_err(reading)?,
            version: from_sql(get(1)?),
            data,
            timestamp: time(row, 3).map_err(reading)?,
            coalesced: from_sql(get(4)?),
        });
    }
    Ok(changes)
}
