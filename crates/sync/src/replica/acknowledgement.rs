//! What the hub says became of a frame, noted in one transaction.

use edgeward_model::EdgeError;
use jiff::Timestamp;

use crate::{
    changes,
    merge::Merge,
    planted::{self, Bug},
    replica::{
        join::join,
        outbox::{InFlight, Outbox, confirm_row, set_cursor},
    },
    transaction::Transaction,
    wire::{Ack, Fate},
};

/// Notes what became of a frame. Returns whether this replica may have to compare what it has.
pub(super) fn note_ack(transaction: &mut Transaction<'_>, in_flight: &InFlight, ack: &Ack, now: Timestamp) -> Result<bool, EdgeError> {
    let hub = ack.hub;
    let mut must_compare = false;
    let mut fates = ack.fates.iter().peekable();
    let mut merge = Merge::default();
    let mut won = Vec::new();
    for (index, (sent, seq)) in in_flight.rows.iter().enumerate() {
        let exception = fates.next_if(|(at, _)| *at as usize == index).map(|(_, fate)| *fate);
        match exception.unwrap_or(Fate::Placed(ack.first.saturating_add(index as u64))) {
            Fate::Placed(position) => {
                let was_shadow = confirm_row(transaction, sent, *seq, Some((hub, position)))?;
                if was_shadow {
                    // It lost here and won there: it is joined again, as a row of the hub.
                    let mut sent = sent.clone();
                    sent.row.place(hub, position);
                    won.push(sent);
                }
            }
            // What stands instead is no later than this: by it the hub will know that it had this row.
            Fate::Superseded(position) => drop(confirm_row(transaction, sent, *seq, Some((hub, position)))?),
            Fate::Lost => {
                let mut place = merge.place(transaction, &sent.document, &sent.key, &sent.slot)?;
                let is_there = place.rows.get(&sent.slot).is_some_and(|stored| stored.row.origin.dot == sent.row.origin.dot);
                confirm_row(transaction, sent, *seq, None)?;
                if is_there {
                    merge.remove(transaction, &sent.document, &sent.key, &sent.slot, &mut place)?;
                }
            }
        }
    }
    merge.finish(transaction, now)?;
    if !won.is_empty() {
        join(transaction, won, now)?;
        must_compare = true;
    }
    set_cursor(transaction, in_flight.epoch, ack.upto, in_flight.after)?;
    let taken = in_flight.rows.iter().map(|(sent, _)| sent.row.stamp).max().unwrap_or_default();
    transaction.state.link.taken = transaction.state.link.taken.max(taken);
    transaction.state.must_store = true;
    // What was changed up to here is with the hub when nothing is left to send.
    if planted::has(Bug::ConfirmByVersionAlone) || Outbox::open(transaction)?.first_epoch(transaction)?.is_none() {
        for (_, name) in transaction.names_after(0)? {
            if let Some(mut head) = transaction.document(&name)?
                && head.pending > 0
            {
                let version = head.version;
                changes::confirm(transaction, &mut head, version)?;
                transaction.store_head(&head);
            }
        }
    }
    Ok(must_compare)
}
