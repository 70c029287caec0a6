//! A standby becomes the hub, and a hub a standby. Each is one transaction, after which the feed has other numbers: a hub numbers its rows by
//! their positions, a replica those that no hub has taken.
//!
//! A row may get a greater position than the hub before gave it, and never a lesser one: it would be hidden from replicas.

use std::collections::BTreeSet;

use edgeward_model::{EdgeError, ErrorKind};
use rusqlite::params;

use crate::{
    causality::{Base, Epoch},
    error::reading,
    interest::Pattern,
    planted::{self, Bug},
    policy::LOCAL_PREFIX,
    record,
    replica_state::Role,
    snapshot::to_sql,
    transaction::Transaction,
};

/// Makes the store of a standby that of a hub, from what it has applied on.
pub(crate) fn promote(transaction: &mut Transaction<'_>) -> Result<(), EdgeError> {
    if transaction.state.role() != Role::Standby {
        return Err(EdgeError::new(ErrorKind::Conflict, "only a standby can become the hub"));
    }
    let select = "SELECT EXISTS (SELECT 1 FROM rows WHERE seq IS NOT NULL) OR EXISTS (SELECT 1 FROM shadows)";
    if transaction.prepare(select)?.query_row([], |row| row.get(0)).map_err(reading)? {
        let why = "this standby has writes from before it was one that no hub has taken; let it follow a hub until they are";
        return Err(EdgeError::new(ErrorKind::Conflict, why));
    }
    let link = &mut transaction.state.link;
    let current = link.lineage.current();
    if current.is_none() {
        let why = "this standby has not caught up with a hub yet, and would be one that knows nothing; let it follow the hub first";
        return Err(EdgeError::new(ErrorKind::Conflict, why));
    }
    let applied = link.base.entries().iter().find(|(epoch, _)| Some(*epoch) == current).map_or(0, |(_, position)| *position);
    // Within a pull a row of a lesser position may be on its way with a greater one, and is not here at all.
    let applied = applied.min(link.whole);
    let applied = if planted::has(Bug::EpochTakenForWhole) { applied + 100 } else { applied };
    (link.role, link.hub, link.must_compare) = (Role::Hub, None, false);
    transaction.state.feed = applied;
    let fresh = Epoch::draw()?;
    transaction.state.change_epoch(transaction.sql(), fresh)?;
    let lineage = transaction.state.link.lineage.clone();
    transaction.execute("UPDATE documents SET covered = 1 WHERE covered = 0", [])?;
    let mut taken = BTreeSet::new();
    for (id, name) in transaction.names_after(0)? {
        if name.starts_with(LOCAL_PREFIX) {
            continue;
        }
        let mut rows = Vec::new();
        transaction.each_row_of(
            id,
            "",
            |_| true,
            |key, slot, stored| {
                let known = stored
                    .row
                    .positions
                    .iter()
                    .filter(|(epoch, position)| lineage.reach(*epoch, applied).is_some_and(|end| *position <= end));
                rows.push((key.to_owned(), record::slot_bytes(&slot), known.map(|(_, position)| *position).max()));
                Ok(true)
            },
        )?;
        for (key, slot, position) in rows {
            let seq = match position.filter(|position| taken.insert(*position)) {
                Some(position) => position,
                None => transaction.state.next_seq()?,
            };
            let update = "UPDATE rows SET seq = ?4 WHERE document = ?1 AND key = ?2 AND slot = ?3";
            transaction.execute(update, params![id, key, slot, to_sql(seq)])?;
        }
    }
    Ok(())
}

/// Makes the store of a hub that of a standby, which has all that it had taken from the next hub or gives it.
pub(crate) fn demote(transaction: &mut Transaction<'_>) -> Result<(), EdgeError> {
    if !transaction.state.is_hub() {
        return Err(EdgeError::new(ErrorKind::Conflict, "only a hub can become a standby"));
    }
    let (epoch, feed) = (transaction.state.epoch, transaction.state.feed);
    let lineage = transaction.state.link.lineage.clone();
    for (id, _) in transaction.names_after(0)? {
        let mut rows = Vec::new();
        transaction.each_row_of(
            id,
            "",
            |_| true,
            |key, slot, stored| {
                if let Some(seq) = stored.seq {
                    let mut row = stored.row;
                    row.place(lineage.epoch_at(seq).unwrap_or(epoch), seq);
                    rows.push((key.to_owned(), record::slot_bytes(&slot), record::encode(&row).1));
                }
                Ok(true)
            },
        )?;
        for (key, slot, state) in rows {
            let update = "UPDATE rows SET seq = NULL, state = ?4 WHERE document = ?1 AND key = ?2 AND slot = ?3";
            transaction.execute(update, params![id, key, slot, state])?;
        }
    }
    let link = &mut transaction.state.link;
    link.base = Base::new();
    if !planted::has(Bug::DemotedKeepsToItself) {
        link.base.advance(epoch, feed);
        link.whole = feed;
        link.must_compare = true;
    }
    (link.role, link.patterns) = (Role::Standby, vec![Pattern::all()]);
    let fresh = Epoch::draw()?;
    transaction.state.change_epoch(transaction.sql(), fresh)
}
