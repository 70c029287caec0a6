//! The replicas of a hub, by the openings of their stores: how far each is acknowledged, and what came before it. A standby holds the same,
//! never newer than its rows.

use edgeward_model::{EdgeError, NodeId};
use rusqlite::{OptionalExtension, Row, params};

use crate::{
    causality::{Ancestors, Epoch},
    clock::Stamp,
    error::{damaged, reading},
    snapshot::{Snapshot, from_sql, to_sql},
    transaction::Transaction,
    wire::{FRAME_BYTES_MAX, Writer},
};

/// What a writer takes in a frame beside its lists.
const WRITER_BYTES: usize = 160;
/// Writers are added to a frame up to here; one may pass it, by its answer.
const WRITERS_BYTES_MAX: usize = FRAME_BYTES_MAX / 8;

const COLUMNS: &str = "node, epoch, acknowledged, chain, before, answer, taken, ancestors, seen_at, number";

/// Notes an epoch of a replica, with those before it.
pub(super) fn note_writer(
    transaction: &Transaction<'_>,
    node: &NodeId,
    epoch: Epoch,
    before: &[(Epoch, u64)],
    now_millis: u64,
) -> Result<(), EdgeError> {
    let mut ancestors = Ancestors::default();
    for (epoch, counter) in before {
        ancestors.add(*epoch, *counter);
    }
    let ancestors = postcard::to_allocvec(&ancestors).expect("ancestors are numbers");
    let insert = "INSERT INTO writers (node, epoch, acknowledged, chain, before, answer, taken, ancestors, seen_at, number)
        VALUES (?1, ?2, 0, 0, 0, X'', 0, ?3, ?4, (SELECT coalesce(max(number), 0) + 1 FROM writers))
        ON CONFLICT DO UPDATE SET seen_at = ?4, number = excluded.number";
    transaction.execute(insert, params![node.as_str(), to_sql(epoch.0), ancestors, to_sql(now_millis)]).map(drop)
}

/// Notes what became of a frame.
pub(super) fn put_writer(transaction: &Transaction<'_>, writer: &Writer) -> Result<(), EdgeError> {
    let update = "UPDATE writers SET acknowledged = ?3, chain = ?4, before = ?5, answer = ?6, taken = ?7,
        number = (SELECT max(number) + 1 FROM writers) WHERE node = ?1 AND epoch = ?2";
    let Writer { node, epoch, acknowledged, chain, before, answer, taken, .. } = writer;
    let numbers = (to_sql(*acknowledged), to_sql(*chain), to_sql(*before));
    transaction
        .execute(update, params![node.as_str(), to_sql(epoch.0), numbers.0, numbers.1, numbers.2, answer, to_sql(taken.bits())])
        .map(drop)
}

pub(super) fn writer(snapshot: &Snapshot<'_>, node: &NodeId, epoch: Epoch) -> Result<Option<Writer>, EdgeError> {
    let mut statement = snapshot.prepare(&format!("SELECT {COLUMNS} FROM writers WHERE node = ?1 AND epoch = ?2"))?;
    let mut rows = statement.query(params![node.as_str(), to_sql(epoch.0)]).map_err(reading)?;
    rows.next().map_err(reading)?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<Writer, EdgeError> {
    let number = |at| row.get(at).map(from_sql).map_err(reading);
    let node: String = row.get(0).map_err(reading)?;
    let ancestors: Vec<u8> = row.get(7).map_err(reading)?;
    Ok(Writer {
        node: NodeId::new(node).map_err(|_| damaged("list of writers"))?,
        epoch: Epoch(number(1)?),
        acknowledged: number(2)?,
        chain: number(3)?,
        before: number(4)?,
        answer: row.get(5).map_err(reading)?,
        taken: Stamp::from_bits(number(6)?),
        ancestors: postcard::from_bytes(&ancestors).map_err(|_| damaged("list of writers"))?,
        seen_at: number(8)?,
        number: number(9)?,
    })
}

/// The epochs before one, as its first hello told them; none of one that never said hello.
pub(super) fn ancestors(snapshot: &Snapshot<'_>, node: &NodeId, epoch: Epoch) -> Result<Ancestors, EdgeError> {
    let select = "SELECT ancestors FROM writers WHERE node = ?1 AND epoch = ?2";
    let found = snapshot.prepare(select)?.query_row(params![node.as_str(), to_sql(epoch.0)], |row| row.get(0));
    let found: Option<Vec<u8>> = found.optional().map_err(reading)?;
    let known = found.map(|bytes| postcard::from_bytes(&bytes).map_err(|_| damaged("list of writers"))).transpose()?;
    Ok(known.unwrap_or_default())
}

/// The writers that changed after a number, as many as a frame holds beside few rows, and whether that is all.
pub(super) fn changed_after(snapshot: &Snapshot<'_>, number: u64) -> Result<(Vec<Writer>, bool), EdgeError> {
    let mut statement = snapshot.prepare(&format!("SELECT {COLUMNS} FROM writers WHERE number > ?1 ORDER BY number"))?;
    let mut rows = statement.query([to_sql(number)]).map_err(reading)?;
    let (mut writers, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(reading)? {
        if bytes > WRITERS_BYTES_MAX {
            return Ok((writers, false));
        }
        let writer = read(row)?;
        bytes += WRITER_BYTES + writer.answer.len() + writer.ancestors.len() * 20;
        writers.push(writer);
    }
    Ok((writers, true))
}

/// The number of the last change that a standby was told.
pub(crate) fn last_number(snapshot: &Snapshot<'_>) -> Result<u64, EdgeError> {
    let last = snapshot.prepare("SELECT coalesce(max(number), 0) FROM writers")?.query_row([], |row| row.get(0));
    last.map(from_sql).map_err(reading)
}

/// Takes over what the hub keeps of writers.
pub(crate) fn follow(transaction: &Transaction<'_>, writers: &[Writer]) -> Result<(), EdgeError> {
    let insert = format!("INSERT OR REPLACE INTO writers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    for writer in writers {
        let Writer { node, epoch, acknowledged, chain, before, answer, taken, ancestors, seen_at, number } = writer;
        let ancestors = postcard::to_allocvec(ancestors).expect("ancestors are numbers");
        let [epoch, acknowledged, chain, before] = [epoch.0, *acknowledged, *chain, *before].map(to_sql);
        let [taken, seen_at, number] = [taken.bits(), *seen_at, *number].map(to_sql);
        transaction
            .execute(&insert, params![node.as_str(), epoch, acknowledged, chain, before, answer, taken, ancestors, seen_at, number])?;
    }
    Ok(())
}

/// Forgets all writers: another hub tells its own.
pub(crate) fn forget(transaction: &Transaction<'_>) -> Result<(), EdgeError> {
    transaction.execute("DELETE FROM writers", []).map(drop)
}
