//! Pending changes: what was changed here and not confirmed, for those who carry states by themselves.

use edgeward_model::{EdgeError, ErrorKind, Object, Value, limits::PENDING_CHANGES_MAX, python_json};
use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use crate::{
    merge_patch,
    transaction::{DocumentHead, Transaction, from_sql, reading, time, to_sql},
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

/// Notes the change that led to this version.
pub(crate) fn add(
    transaction: &mut Transaction<'_>,
    head: &DocumentHead,
    kind: &str,
    version: u64,
    change: &Object,
    now: Timestamp,
) -> Result<(), EdgeError> {
    let mut text = String::new();
    python_json::write_object(&mut text, change)?;
    let insert = "INSERT INTO pending (document, version, type, data, timestamp, coalesced) VALUES (?1, ?2, ?3, ?4, ?5, 0)";
    transaction.execute(insert, params![head.id, to_sql(version), kind, text, now.to_string()])?;
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
    let mut changes = rows(transaction, head, "ORDER BY version DESC LIMIT 2")?;
    let (Some(newest), Some(neighbour)) = (changes.first().cloned(), changes.pop()) else { return Ok(()) };
    let coalesced = to_sql(newest.coalesced + neighbour.coalesced + 1);
    let composed = match (newest.r#type.as_str(), neighbour.r#type.as_str()) {
        (PATCH, PATCH) => merge_patch::compose(neighbour.data, &newest.data),
        _ => None,
    };
    let both = match composed {
        Some(data) => PendingChange { data, ..newest },
        // The newest change led to the state of now, which says all there is.
        None => PendingChange { r#type: UPDATE.to_owned(), data: transaction.data(head)?, ..newest },
    };
    transaction.execute("DELETE FROM pending WHERE document = ?1 AND version = ?2", params![head.id, to_sql(neighbour.version)])?;
    let update = "UPDATE pending SET type = ?3, data = ?4, coalesced = ?5 WHERE document = ?1 AND version = ?2";
    let mut text = String::new();
    python_json::write_object(&mut text, &both.data)?;
    transaction.execute(update, params![head.id, to_sql(both.version), both.r#type, text, coalesced]).map(drop)
}

/// The changes of a document, oldest first.
pub(crate) fn list(transaction: &Transaction<'_>, head: &DocumentHead) -> Result<Vec<PendingChange>, EdgeError> {
    rows(transaction, head, "ORDER BY version")
}

fn rows(transaction: &Transaction<'_>, head: &DocumentHead, order: &str) -> Result<Vec<PendingChange>, EdgeError> {
    let select = format!("SELECT type, version, data, timestamp, coalesced FROM pending WHERE document = ?1 {order}");
    let mut statement = transaction.sql().prepare_cached(&select).map_err(reading)?;
    let mut rows = statement.query([head.id]).map_err(reading)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(reading)? {
        let get = |index| row.get::<_, i64>(index).map_err(reading);
        let text: String = row.get(2).map_err(reading)?;
        let damaged = || EdgeError::new(ErrorKind::Internal, "a pending change is damaged on disk; restore the store from a backup");
        let Value::Object(data) = python_json::read(&text)? else { return Err(damaged()) };
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
