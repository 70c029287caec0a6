//! The outbox of a replica: what the hub has not acknowledged, the frame that is made of it, and how far the hub has it.
//!
//! It is the rows with a place in the feed, and the shadows: rows of which a pulled row took the place.

use edgeward_model::EdgeError;
use rusqlite::{OptionalExtension, params};

use crate::{
    causality::{Dot, Epoch, Position},
    error::reading,
    record,
    row::{Body, Row, Slot},
    snapshot::{Snapshot, from_sql, sent, to_sql},
    transaction::Transaction,
    wire::{self, Push, Request, RowsWriter, SentRow},
};

/// A frame on its way, which is sent again as it is.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(super) epoch: Epoch,
    /// The chain before it and after it.
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) message: Vec<u8>,
    /// Each with its place in the feed; a shadow has none.
    pub(super) rows: Vec<(SentRow, Option<Position>)>,
}

impl InFlight {
    pub(super) fn upto(&self) -> u64 {
        self.rows.last().map_or(0, |(sent, _)| sent.row.origin.dot.counter)
    }
}

/// The next frame of the outbox: rows of its oldest epoch, in the order in which they were written.
pub(crate) fn compose(snapshot: &Snapshot<'_>) -> Result<Option<InFlight>, EdgeError> {
    let mut outbox = Outbox::open(snapshot)?;
    let Some(first) = outbox.first_epoch(snapshot)? else { return Ok(None) };
    let (acknowledged, before) = cursor(snapshot, first)?;
    // What the hub has of these is to be seen first.
    let uncovered = snapshot.uncovered()?;
    let mut writer = RowsWriter::default();
    let mut rows = Vec::new();
    outbox.each(snapshot, first, |sent, seq| {
        let fits = !uncovered.contains(&sent.document) && writer.add(&sent.document, &sent.key, &sent.slot, &sent.row);
        if fits {
            rows.push((sent, seq));
        }
        Ok(fits)
    })?;
    let Some((last, _)) = rows.last() else { return Ok(None) };
    let upto = last.row.origin.dot.counter;
    let push = Push { chain: before, after: acknowledged, upto, rows: writer.finish() };
    let message = wire::message(&Request::Push(push));
    let after = wire::chain(before, &message);
    Ok(Some(InFlight { epoch: first, before, after, message, rows }))
}

/// The rows that the hub has not acknowledged: those with a place in the feed, and those that a pulled row took the place of.
pub(super) struct Outbox {
    shadows: Vec<(i64, u64, SentRow)>,
}

impl Outbox {
    pub(super) fn open(snapshot: &Snapshot<'_>) -> Result<Self, EdgeError> {
        let select = "SELECT slot, value, state, NULL, key, documents.name, opening, counter FROM shadows
            JOIN documents ON documents.id = shadows.document ORDER BY opening, counter";
        let mut statement = snapshot.prepare(select)?;
        let mut rows = statement.query([]).map_err(reading)?;
        let mut shadows = Vec::new();
        while let Some(row) = rows.next().map_err(reading)? {
            let counter: i64 = row.get(7).map_err(reading)?;
            shadows.push((row.get(6).map_err(reading)?, from_sql(counter), sent(row)?.0));
        }
        Ok(Self { shadows })
    }

    pub(super) fn first_epoch(&self, snapshot: &Snapshot<'_>) -> Result<Option<Epoch>, EdgeError> {
        let mut row = None;
        snapshot.feed(0, |sent, _| {
            row = Some(sent.row.origin.dot.epoch);
            Ok(false)
        })?;
        let shadow = self.shadows.first().map(|(opening, _, sent)| (*opening, sent.row.origin.dot.epoch));
        Ok(match (row, shadow) {
            (Some(row), Some((opening, shadow))) => Some(if opening <= opening_of(snapshot, row)? { shadow } else { row }),
            (row, shadow) => row.or(shadow.map(|(_, epoch)| epoch)),
        })
    }

    /// Calls with each row of an epoch and its place in the feed, by counter, until it has enough.
    fn each(
        &mut self,
        snapshot: &Snapshot<'_>,
        epoch: Epoch,
        mut each: impl FnMut(SentRow, Option<Position>) -> Result<bool, EdgeError>,
    ) -> Result<(), EdgeError> {
        let is_own = |sent: &SentRow| sent.row.origin.dot.epoch == epoch;
        let mut shadows = std::mem::take(&mut self.shadows).into_iter().map(|(.., sent)| sent).peekable();
        let mut has_enough = false;
        snapshot.feed(0, |sent, seq| {
            if !is_own(&sent) {
                return Ok(false);
            }
            let counter = sent.row.origin.dot.counter;
            while let Some(shadow) = shadows.next_if(|shadow| is_own(shadow) && shadow.row.origin.dot.counter <= counter) {
                if !each(shadow, None)? {
                    has_enough = true;
                    return Ok(false);
                }
            }
            has_enough = !each(sent, Some(seq))?;
            Ok(!has_enough)
        })?;
        while !has_enough && let Some(shadow) = shadows.next_if(is_own) {
            has_enough = !each(shadow, None)?;
        }
        Ok(())
    }
}

pub(super) fn opening_of(snapshot: &Snapshot<'_>, epoch: Epoch) -> Result<i64, EdgeError> {
    let found = snapshot.prepare("SELECT opening FROM epochs WHERE epoch = ?1")?.query_row([to_sql(epoch.0)], |row| row.get(0));
    found.map_err(reading)
}

/// The acknowledged counter of an epoch, and the chain of its frames.
pub(super) fn cursor(snapshot: &Snapshot<'_>, epoch: Epoch) -> Result<(u64, u64), EdgeError> {
    let select = "SELECT acknowledged, chain FROM epochs WHERE epoch = ?1";
    let found = snapshot.prepare(select)?.query_row([to_sql(epoch.0)], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    Ok(found.map_err(reading)?.map_or((0, 0), |(acknowledged, chain)| (from_sql(acknowledged), from_sql(chain))))
}

pub(super) fn set_cursor(transaction: &Transaction<'_>, epoch: Epoch, acknowledged: u64, chain: u64) -> Result<(), EdgeError> {
    let update = "UPDATE epochs SET acknowledged = ?2, chain = ?3 WHERE epoch = ?1";
    transaction.execute(update, [to_sql(epoch.0), to_sql(acknowledged), to_sql(chain)]).map(drop)
}

/// Takes over what the hub says of an epoch that is over, and takes what it has out of the outbox.
pub(super) fn take_over_cursor(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    acknowledged: u64,
    chain: u64,
    end: (Epoch, Position),
) -> Result<(), EdgeError> {
    set_cursor(transaction, epoch, acknowledged, chain)?;
    acknowledge_up_to(transaction, epoch, acknowledged, Some(end))
}

/// Takes the rows of an epoch up to a counter out of the outbox.
pub(super) fn acknowledge_up_to(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    acknowledged: u64,
    place: Option<(Epoch, Position)>,
) -> Result<(), EdgeError> {
    let mut taken = Vec::new();
    Outbox::open(transaction)?.each(transaction, epoch, |sent, seq| {
        let is_taken = sent.row.origin.dot.counter <= acknowledged;
        if is_taken {
            taken.push((sent, seq));
        }
        Ok(is_taken)
    })?;
    for (sent, seq) in taken {
        confirm_row(transaction, &sent, seq, place)?;
    }
    transaction.state.must_store = true;
    Ok(())
}

/// Takes a row that the hub has out of the outbox, unless it was overwritten since. `seq` is the place in the feed that it had when it was
/// sent. Returns whether it was a shadow.
pub(super) fn confirm_row(
    transaction: &mut Transaction<'_>,
    sent: &SentRow,
    seq: Option<Position>,
    place: Option<(Epoch, Position)>,
) -> Result<bool, EdgeError> {
    if let (Some(seq), Some((epoch, position)), Body::Register(_)) = (seq, place, &sent.row.body) {
        // A register that still has its place in the feed is as it was sent.
        let mut row = sent.row.clone();
        row.place(epoch, position);
        let update = "UPDATE rows SET seq = NULL, state = ?2 WHERE seq = ?1";
        if transaction.execute(update, params![to_sql(seq), record::encode(&row).1])? > 0 {
            return Ok(false);
        }
    }
    let dot = &sent.row.origin.dot;
    let Some(head) = transaction.document(&sent.document)? else { return Ok(false) };
    let shadows = delete_shadow(transaction, dot)?;
    let Some(mut stored) = transaction.row(&head, &sent.key, &sent.slot)? else { return Ok(shadows > 0) };
    if let (Body::Counter(current), Body::Counter(taken)) = (&mut stored.row.body, &sent.row.body)
        && current.instance == taken.instance
    {
        current.acknowledged = taken.sum;
    }
    if stored.row.origin.dot == *dot {
        if let Some((epoch, position)) = place {
            stored.row.place(epoch, position);
        }
        stored.seq = None;
    } else if !matches!(stored.row.body, Body::Counter(_)) {
        return Ok(shadows > 0);
    }
    transaction.put_row(&head, &sent.key, &sent.slot, &stored)?;
    Ok(shadows > 0)
}

/// Keeps a row of the outbox beside the one that shows, under its dot.
pub(super) fn put_shadow(transaction: &Transaction<'_>, document: i64, key: &str, slot: &Slot, row: &Row) -> Result<(), EdgeError> {
    let dot = &row.origin.dot;
    let opening = opening_of(transaction, dot.epoch)?;
    let (value, state) = record::encode(row);
    let insert = "INSERT OR REPLACE INTO shadows (opening, counter, document, key, slot, value, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.execute(insert, params![opening, to_sql(dot.counter), document, key, record::slot_bytes(slot), value, state])?;
    Ok(())
}

/// Forgets a shadow; returns how many there were.
pub(super) fn delete_shadow(transaction: &Transaction<'_>, dot: &Dot) -> Result<usize, EdgeError> {
    let delete = "DELETE FROM shadows WHERE opening = (SELECT opening FROM epochs WHERE epoch = ?1) AND counter = ?2";
    transaction.execute(delete, [to_sql(dot.epoch.0), to_sql(dot.counter)])
}

/// Everything in the outbox, in the order in which it was written.
pub(super) fn outbox(transaction: &Transaction<'_>) -> Result<Vec<(SentRow, bool)>, EdgeError> {
    let shadows = Outbox::open(transaction)?.shadows.into_iter().map(|(.., sent)| (sent, true));
    let mut found: Vec<_> = shadows.collect();
    transaction.feed(0, |sent, _| {
        found.push((sent, false));
        Ok(true)
    })?;
    let mut openings = std::collections::HashMap::new();
    for (sent, _) in &found {
        let epoch = sent.row.origin.dot.epoch;
        openings.insert(epoch, opening_of(transaction, epoch)?);
    }
    found.sort_by_key(|(sent, _)| (openings[&sent.row.origin.dot.epoch], sent.row.origin.dot.counter));
    Ok(found)
}

/// The dots of the outbox, in the order in which they were written.
#[cfg(test)]
pub(crate) fn outbox_dots(transaction: &Transaction<'_>) -> Result<Vec<Dot>, EdgeError> {
    Ok(outbox(transaction)?.into_iter().map(|(sent, _)| sent.row.origin.dot).collect())
}
