//! The outbox written anew: in another epoch, after a copy of the store wrote in this one, or with other stamps, after the clock was
//! ahead. The hub has taken nothing of it.

use std::{collections::HashMap, sync::Arc};

use edgeward_model::EdgeError;

use crate::{
    causality::{Dot, Epoch},
    clock::{Clock, Stamp},
    replica::outbox::{cursor, delete_shadow, outbox, put_shadow},
    row::{Addition, Body, Membership, Register, Slot, Subtotal},
    snapshot::to_sql,
    transaction::Transaction,
    view::Stored,
    wire::SentRow,
};

/// Goes on in a new epoch after another store wrote in this one: what is not acknowledged gets new dots. Counts move to the new
/// epoch as far as the hub has not taken them.
pub(super) fn begin_apart(transaction: &mut Transaction<'_>) -> Result<(), EdgeError> {
    let old = transaction.state.epoch;
    let found = outbox(transaction)?;
    let (acknowledged, _) = cursor(transaction, old)?;
    let fresh = Epoch::draw()?;
    transaction.state.change_epoch(transaction.sql(), fresh)?;
    // What it knows of the old epoch ends where the other store's writes may begin.
    transaction.execute("UPDATE epochs SET counter = acknowledged WHERE epoch = ?1", [to_sql(old.0)])?;
    for (sent, is_shadow) in found.into_iter().filter(|(sent, _)| sent.row.origin.dot.epoch == old) {
        let SentRow { document, key, slot, mut row } = sent;
        let Some(head) = transaction.document(&document)? else { continue };
        let before = row.origin.dot.clone();
        if is_shadow {
            delete_shadow(transaction, &before)?;
        }
        let counter = transaction.state.next_counter()?;
        row.origin.dot = Dot { epoch: fresh, counter, ..before.clone() };
        let mut new_slot = slot.clone();
        match (&slot, &mut row.body) {
            (Slot::Counter(node, _), Body::Counter(Subtotal { sum, acknowledged, .. })) => {
                new_slot = Slot::Counter(node.clone(), fresh);
                (*sum, *acknowledged) = (sum.saturating_sub(*acknowledged), 0);
            }
            (Slot::Member(element, node, epoch), Body::Member(membership)) if *node == before.node && *epoch == old => {
                if let Some(added) = membership.live().cloned().filter(|added| added.counter == before.counter) {
                    new_slot = Slot::Member(Arc::clone(element), node.clone(), fresh);
                    *membership = Membership { added: Some(Addition { counter, ..added }), removed: 0 };
                } else {
                    // Past what was acknowledged these are counters of the other store, which it has not seen.
                    membership.added.take_if(|added| added.counter > acknowledged);
                    membership.removed = membership.removed.min(acknowledged);
                }
            }
            _ => {}
        }
        if new_slot != slot {
            row.origin.overwrote = None;
            // What the other store made of the old slot comes with the comparison.
            transaction.delete_row(&head, &key, &slot)?;
        }
        if is_shadow {
            put_shadow(transaction, head.id, &key, &new_slot, &row)?;
        } else {
            let seq = Some(transaction.state.next_seq()?);
            transaction.put_row(&head, &key, &new_slot, &Stored { row, seq })?;
        }
    }
    transaction.state.must_store = true;
    Ok(())
}

/// Gives what the hub has not taken stamps that it takes, when the clock of this replica was ahead. Returns whether it was.
pub(super) fn restamp(transaction: &mut Transaction<'_>, hub_millis: u64, stamp_millis_max: u64) -> Result<bool, EdgeError> {
    if transaction.state.clock.last().millis() <= stamp_millis_max {
        return Ok(false);
    }
    let mut clock = Clock::new(Stamp::from_millis(hub_millis).max(transaction.state.link.taken));
    for (id, _) in transaction.names_after(0)? {
        transaction.each_row_of(
            id,
            "",
            |_| true,
            |_, _, stored| {
                if stored.seq.is_none() {
                    clock.observe(stored.row.stamp);
                }
                Ok(true)
            },
        )?;
    }
    transaction.state.clock = clock;
    transaction.state.must_store = true;
    let mut given = HashMap::new();
    for (sent, is_shadow) in outbox(transaction)? {
        let SentRow { document, key, slot, mut row } = sent;
        let Some(head) = transaction.document(&document)? else { continue };
        if row.stamp.millis() <= stamp_millis_max {
            // It was written before the clock was wrong; a hub that was set back since may have taken it with this stamp.
            transaction.state.clock.observe(row.stamp);
            continue;
        }
        let stamp = transaction.state.tick(hub_millis)?;
        given.insert(row.stamp, stamp);
        row.stamp = stamp;
        let renew = |stamp: &mut Stamp| *stamp = given.get(stamp).copied().unwrap_or(*stamp);
        match &mut row.body {
            Body::Register(Register { root, instance, .. }) => {
                root.as_mut().map(|(stamp, _)| stamp).into_iter().chain(instance).for_each(renew);
            }
            Body::Counter(subtotal) => subtotal.instance.as_mut().into_iter().for_each(renew),
            Body::Member(membership) => {
                // An addition that the hub has keeps its stamp, whoever removed it since.
                let counter = row.origin.dot.counter;
                membership
                    .added
                    .as_mut()
                    .filter(|added| added.counter == counter)
                    .map(|added| &mut added.stamp)
                    .into_iter()
                    .for_each(renew);
            }
            Body::Floor(_) => {}
        }
        if is_shadow {
            put_shadow(transaction, head.id, &key, &slot, &row)?;
        } else {
            let seq = transaction.row(&head, &key, &slot)?.and_then(|stored| stored.seq);
            transaction.put_row(&head, &key, &slot, &Stored { row, seq })?;
        }
    }
    Ok(true)
}
