//! The replicas of a hub, by the openings of their stores: how far each is acknowledged, and what came before it.

use edgeward_model::{EdgeError, NodeId};
use rusqlite::{OptionalExtension, params};

use crate::{
    causality::{Ancestors, Epoch},
    clock::Stamp,
    error::{damaged, reading},
    snapshot::{Snapshot, from_sql, to_sql},
    transaction::Transaction,
};

/// What the hub keeps of a writer's epoch.
pub(super) struct Writer {
    pub(super) acknowledged: u64,
    pub(super) chain: u64,
    /// The chain before the last frame, and its answer.
    pub(super) before: u64,
    pub(super) answer: Vec<u8>,
    /// The greatest stamp of its rows.
    pub(super) taken: Stamp,
}

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
    let insert = "INSERT INTO writers (node, epoch, acknowledged, chain, before, answer, taken, ancestors, seen_at)
        VALUES (?1, ?2, 0, 0, 0, X'', 0, ?3, ?4) ON CONFLICT DO UPDATE SET seen_at = ?4";
    transaction.execute(insert, params![node.as_str(), to_sql(epoch.0), ancestors, to_sql(now_millis)]).map(drop)
}

pub(super) fn writer(snapshot: &Snapshot<'_>, node: &NodeId, epoch: Epoch) -> Result<Option<Writer>, EdgeError> {
    let select = "SELECT acknowledged, chain, before, answer, taken FROM writers WHERE node = ?1 AND epoch = ?2";
    let mut statement = snapshot.prepare(select)?;
    let found = statement.query_row(params![node.as_str(), to_sql(epoch.0)], |row| {
        let (acknowledged, chain, before) = (from_sql(row.get(0)?), from_sql(row.get(1)?), from_sql(row.get(2)?));
        Ok(Writer { acknowledged, chain, before, answer: row.get(3)?, taken: Stamp::from_bits(from_sql(row.get(4)?)) })
    });
    found.optional().map_err(reading)
}

/// The epochs before one, as its first hello told them; none of one that never said hello.
pub(super) fn ancestors(snapshot: &Snapshot<'_>, node: &NodeId, epoch: Epoch) -> Result<Ancestors, EdgeError> {
    let select = "SELECT ancestors FROM writers WHERE node = ?1 AND epoch = ?2";
    let found = snapshot.prepare(select)?.query_row(params![node.as_str(), to_sql(epoch.0)], |row| row.get(0));
    let found: Option<Vec<u8>> = found.optional().map_err(reading)?;
    let known = found.map(|bytes| postcard::from_bytes(&bytes).map_err(|_| damaged("list of writers"))).transpose()?;
    Ok(known.unwrap_or_default())
}
