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
pub(crate) fn add(transaction: &mut Transaction<'_>, head: &mut DocumentHead, kind: &str, change: &Object) -> Result<(), EdgeError> {
    let text = json(change)?;
    let insert = "INSERT INTO pending (document, version, type, data, timestamp, coalesced) VALUES (?1, ?2, ?3, ?4, ?5, 0)";
    transaction.execute(insert, params![head.id, to_sql(head.version), kind, text, head.updated_at.to_string()])?;
    head.pending = head.pending.saturating_add(1);
    if head.pending > PENDING_CHANGES_MAX as u64 {
        coalesce(transaction, head)?;
    }
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
    let mut merged = false;
    for change in list(transaction, head)? {
        // The last of a pair that was made just now does not take a third one.
        let earlier = if merged { None } else { kept.pop() };
        merged = false;
        match earlier.map(|earlier| join(earlier, change.clone())) {
            Some(Ok(both)) => {
                kept.push(both);
                merged = true;
            }
            Some(Err(earlier)) => kept.extend([earlier, change]),
            None => kept.push(change),
        }
    }
    if kept.len() > PENDING_CHANGES_MAX {
        // No two could be said in one: the newest led to the state of now, which says all there is.
        let changes = kept.iter().fold(0_u64, |sum, change| sum.saturating_add(change.coalesced).saturating_add(1));
        let coalesced = changes.saturating_sub(1);
        let newest = kept.pop().into_iter();
        let data = transaction.data(head)?;
        kept = newest.map(|newest| PendingChange { r#type: UPDATE.to_owned(), data: data.clone(), coalesced, ..newest }).collect();
    }
    confirm(transaction, head, u64::MAX)?;
    for PendingChange { r#type, version, data, timestamp, coalesced } in kept {
        let insert = "INSERT INTO pending (document, version, type, data, timestamp, coalesced) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![head.id, to_sql(version), r#type, json(&data)?, timestamp.to_string(), to_sql(coalesced)];
        transaction.execute(insert, values)?;
        head.pending = head.pending.saturating_add(1);
    }
    Ok(())
}

/// One change that does what two do, one after the other; the earlier one back when none can say it.
fn join(earlier: PendingChange, later: PendingChange) -> Result<PendingChange, PendingChange> {
    let coalesced = earlier.coalesced.saturating_add(later.coalesced).saturating_add(1);
    match (earlier.r#type.as_str(), later.r#type.as_str()) {
        // A whole state says all there is.
        (_, UPDATE) => Ok(PendingChange { coalesced, ..later }),
        (UPDATE, _) => {
            let data = merge_patch::apply_object(earlier.data, &later.data);
            Ok(PendingChange { r#type: UPDATE.to_owned(), data, coalesced, ..later })
        }
        _ => match merge_patch::compose(earlier.data.clone(), &later.data) {
            Some(data) => Ok(PendingChange { data, coalesced, ..later }),
            None => Err(earlier),
        },
    }
}

fn json(object: &Object) -> Result<String, EdgeError> {
    let mut text = String::new();
    python_json::write_object(&mut text, object)?;
    Ok(text)
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
