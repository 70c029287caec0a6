//! Rows of the hub on their way into a replica: each joins what is here, and a floor forgets what the hub forgot.

use edgeward_model::EdgeError;
use jiff::Timestamp;

use crate::{
    merge::Merge,
    policy::{LOCAL_PREFIX, Policy},
    replica::outbox::put_shadow,
    row::{Body, Row, Slot},
    transaction::Transaction,
    view::Stored,
    wire::SentRow,
};

/// Joins rows of the hub with what is here.
pub(super) fn join(transaction: &mut Transaction<'_>, rows: Vec<SentRow>, now: Timestamp) -> Result<(), EdgeError> {
    let mut merge = Merge::default();
    for sent in rows.iter().filter(|sent| sent.slot == Slot::Floor) {
        apply_floor(transaction, &mut merge, sent)?;
    }
    for SentRow { document, key, slot, row } in rows.into_iter().filter(|sent| sent.slot != Slot::Floor) {
        if document.starts_with(LOCAL_PREFIX) {
            continue;
        }
        transaction.state.clock.observe(row.stamp);
        let policy = transaction.policies()?.policy(&document, &key);
        let mut place = merge.place(transaction, &document, &key, &slot)?;
        let stored = match place.rows.get(&slot).cloned() {
            None => Stored { row, seq: None },
            Some(current) if current.seq.is_some() => {
                if current.row.origin.dot == row.origin.dot && !matches!(row.body, Body::Member(_)) {
                    // Its own write, which is not acknowledged yet.
                    continue;
                }
                let joined = current.row.clone().join(row.clone(), &policy);
                match (joined.body, current.row.body.clone()) {
                    (Body::Member(joined), Body::Member(_)) => {
                        let row = Row { body: Body::Member(joined), ..current.row };
                        Stored { row, seq: current.seq }
                    }
                    _ if joined.origin.dot == current.row.origin.dot => continue,
                    _ => {
                        // The hub must still hear of what lost.
                        let document = merge.head(transaction, &document)?.id;
                        put_shadow(transaction, document, &key, &slot, &current.row)?;
                        Stored { row, seq: None }
                    }
                }
            }
            Some(current) => {
                let mut joined = current.row.clone().join(row.clone(), &policy);
                if let (Body::Counter(joined), Body::Counter(known)) = (&mut joined.body, &current.row.body) {
                    joined.acknowledged = if joined.instance == known.instance { known.acknowledged.max(joined.acknowledged) } else { 0 };
                }
                if joined == current.row {
                    continue;
                }
                Stored { row: joined, seq: None }
            }
        };
        merge.put(transaction, &document, &key, &slot, stored, &mut place)?;
    }
    merge.finish(transaction, now)
}

/// Forgets tombstones as the hub did.
fn apply_floor(transaction: &mut Transaction<'_>, merge: &mut Merge, sent: &SentRow) -> Result<(), EdgeError> {
    let Body::Floor(floor) = sent.row.body else { return Ok(()) };
    let mut place = merge.place(transaction, &sent.document, &sent.key, &sent.slot)?;
    let known = place.rows.get(&Slot::Floor).map(|stored| stored.row.clone());
    let policy = Policy::LastWriterWins;
    let row = known.map_or_else(|| sent.row.clone(), |known| known.join(sent.row.clone(), &policy));
    merge.put(transaction, &sent.document, &sent.key, &sent.slot, Stored { row, seq: None }, &mut place)?;
    let head = merge.head(transaction, &sent.document)?.clone();
    let is_forgotten = |row: &Row| row.positions.iter().any(|(_, position)| *position <= floor);
    let mut dead = Vec::new();
    transaction.each_row(&head, "", |key, slot, stored| {
        if stored.seq.is_none() && stored.row.is_dead() && is_forgotten(&stored.row) {
            dead.push((key.to_owned(), slot, stored.row.stamp));
        }
        Ok(true)
    })?;
    for (key, slot, stamp) in dead {
        let rows = transaction.rows(&head, &key)?;
        transaction.delete_row(&head, &key, &slot)?;
        for (slot, stored) in &rows.0 {
            if let Body::Counter(subtotal) = &stored.row.body
                && subtotal.instance < Some(stamp)
                && stored.seq.is_none()
            {
                transaction.delete_row(&head, &key, slot)?;
            }
        }
    }
    Ok(())
}
