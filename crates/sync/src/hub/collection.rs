//! What a hub forgets: tombstones that every replica has, and conflicts that have aged out.

use std::collections::BTreeMap;

use edgeward_model::EdgeError;

use crate::{
    causality::Position,
    clock::time,
    conflict::{self, CONFLICTS},
    merge::Merge,
    row::Body,
    snapshot::DocumentHead,
    transaction::Transaction,
};

pub(super) fn collect_document(
    transaction: &mut Transaction<'_>,
    head: &DocumentHead,
    least: Position,
    oldest_millis: u64,
    now_millis: u64,
) -> Result<(), EdgeError> {
    let mut dead = Vec::new();
    let mut counted = Vec::new();
    transaction.each_row(head, "", |key, slot, stored| {
        let seq = stored.seq.unwrap_or(Position::MAX);
        match &stored.row.body {
            Body::Counter(subtotal) => counted.push((key.to_owned(), slot, subtotal.instance, seq)),
            _ if stored.row.is_dead() && (seq <= least || stored.row.stamp.millis() < oldest_millis) => {
                dead.push((key.to_owned(), slot, stored.row.stamp, seq));
            }
            _ => {}
        }
        Ok(true)
    })?;
    let Some(mut floor) = dead.iter().map(|(.., seq)| *seq).max() else { return Ok(()) };
    for (key, slot, stamp, _) in &dead {
        transaction.delete_row(head, key, slot)?;
        // What was counted before the tombstone is as dead.
        for (_, slot, _, seq) in counted.iter().filter(|(of, _, instance, _)| of == key && *instance < Some(*stamp)) {
            transaction.delete_row(head, key, slot)?;
            floor = floor.max(*seq);
        }
    }
    transaction.put_floor(head, floor, now_millis)
}

pub(super) fn forget_conflicts(transaction: &mut Transaction<'_>, oldest_millis: u64, now_millis: u64) -> Result<(), EdgeError> {
    let Some(head) = transaction.document(CONFLICTS)? else { return Ok(()) };
    let oldest = time(oldest_millis);
    let mut merge = Merge::default();
    let mut old: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in transaction.live_keys(&head, "")? {
        let Some((document, id)) = key.split_once('/') else { continue };
        if let Some(value) = transaction.value(&head, &key)?
            && conflict::read(id, &value).is_some_and(|conflict| conflict.listed_at < oldest)
        {
            old.entry(document.to_owned()).or_default().push(id.to_owned());
        }
    }
    for (document, ids) in old {
        conflict::forget(transaction, &mut merge, &document, &ids, now_millis)?;
    }
    merge.finish(transaction, time(now_millis))
}
