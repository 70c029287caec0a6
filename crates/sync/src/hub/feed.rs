//! What a replica pulls: the rows of the feed that it wants and may see.
//!
//! A pull costs by what has changed for the one who asks, not by what others changed: where much of the feed is of others, the rows of each
//! wanted document are looked up instead.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use edgeward_model::EdgeError;
use rusqlite::params;

use crate::{
    causality::Position,
    error::{damaged, reading},
    hub::last_position,
    interest::Scope,
    snapshot::{Snapshot, from_sql, to_sql},
    wire::SentRow,
};

/// Rows of the feed that are looked at in any case before documents are looked up.
const SCANNED_ROWS_MIN: u64 = if cfg!(test) { 8 } else { 256 };
/// Rows of the feed that one look-up finds, of all or of one document.
const FOUND_ROWS_MAX: u64 = if cfg!(test) { 16 } else { 2048 };
/// Look-ups of one pull; then it tells how far it came.
const ROUNDS_MAX: usize = 16;
/// Looking up a document costs as much as looking at so many rows.
const ROWS_PER_DOCUMENT: u64 = 4;

/// Calls with each row of a scope after a position and up to another, in order, until it has enough. Returns up to where all were told, and
/// whether that is the end.
pub(super) fn each_since(
    snapshot: &Snapshot<'_>,
    scope: Scope<'_>,
    since: Position,
    until: Position,
    mut each: impl FnMut(SentRow, Position) -> Result<bool, EdgeError>,
) -> Result<(Position, bool), EdgeError> {
    let end = last_position(snapshot)?.min(until).max(since);
    let mut look_up = None;
    if end - since > SCANNED_ROWS_MIN && !scope.is_everything() {
        let documents = scope.documents(snapshot)?;
        look_up = Some(documents).filter(|documents| documents.len() as u64 * ROWS_PER_DOCUMENT < end - since);
    }
    let mut names = HashMap::new();
    let mut upto = since;
    for _ in 0..ROUNDS_MAX {
        let (found, horizon) = match &look_up {
            Some(documents) => of_documents(snapshot, documents, scope, upto, end)?,
            None => of_feed(snapshot, &mut names, scope, upto, end)?,
        };
        for position in found {
            if position > end {
                return Ok((end, true));
            }
            let sent = snapshot.row_at(position)?.ok_or_else(|| damaged("feed"))?;
            if !each(sent, position)? {
                return Ok((upto, false));
            }
            upto = position;
        }
        upto = horizon;
        if upto >= end {
            return Ok((end, true));
        }
    }
    Ok((upto, false))
}

/// The next rows of a scope in the feed, and up to where they are all.
fn of_feed(
    snapshot: &Snapshot<'_>,
    names: &mut HashMap<i64, Arc<str>>,
    scope: Scope<'_>,
    since: Position,
    end: Position,
) -> Result<(Vec<Position>, Position), EdgeError> {
    let mut statement = snapshot.prepare("SELECT seq, document, key FROM rows WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut name_of = snapshot.prepare("SELECT name FROM documents WHERE id = ?1")?;
    let mut rows = statement.query([to_sql(since), to_sql(FOUND_ROWS_MAX)]).map_err(reading)?;
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0, since);
    while let Some(row) = rows.next().map_err(reading)? {
        let (position, document): (i64, i64) = (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
        let name = match names.entry(document) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let name: String = name_of.query_row([document], |row| row.get(0)).map_err(reading)?;
                unknown.insert(Arc::from(name))
            }
        };
        let key = row.get_ref(2).and_then(|text| Ok(text.as_str()?)).map_err(reading)?;
        looked_at += 1;
        last = from_sql(position);
        if scope.sees(name, key) {
            found.push(last);
        }
    }
    Ok((found, if looked_at < FOUND_ROWS_MAX { end } else { last }))
}

/// The same, out of the rows of each document.
fn of_documents(
    snapshot: &Snapshot<'_>,
    documents: &[(i64, Arc<str>)],
    scope: Scope<'_>,
    since: Position,
    end: Position,
) -> Result<(Vec<Position>, Position), EdgeError> {
    let select = "SELECT seq, key FROM rows INDEXED BY feed_of WHERE document = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let mut statement = snapshot.prepare(select)?;
    let (mut found, mut horizon) = (Vec::new(), end);
    for (id, name) in documents {
        let mut rows = statement.query(params![id, to_sql(since), to_sql(FOUND_ROWS_MAX)]).map_err(reading)?;
        let (mut looked_at, mut last) = (0, since);
        while let Some(row) = rows.next().map_err(reading)? {
            last = from_sql(row.get(0).map_err(reading)?);
            let key = row.get_ref(1).and_then(|text| Ok(text.as_str()?)).map_err(reading)?;
            looked_at += 1;
            if scope.sees(name, key) {
                found.push(last);
            }
        }
        if looked_at == FOUND_ROWS_MAX {
            horizon = horizon.min(last);
        }
    }
    found.retain(|position| *position <= horizon);
    found.sort_unstable();
    Ok((found, horizon))
}
