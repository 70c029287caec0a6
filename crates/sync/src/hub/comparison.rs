//! What a hub says when a replica compares what it has: which documents, buckets and rows differ, and what becomes of each row.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use edgeward_model::EdgeError;

use crate::{
    causality::{Epoch, Lineage, Position},
    digest,
    error::damaged,
    hub::{last_position, to_u32},
    interest::Scope,
    record,
    row::Slot,
    snapshot::Snapshot,
    wire::{Different, Digest, Keys, Known, Response, Rows, RowsWriter},
};

/// Names of documents in one answer.
const NAMES_MAX: usize = 4000;

/// Which documents from a name on differ.
pub(super) fn documents(
    snapshot: &Snapshot<'_>,
    scope: Scope<'_>,
    from: &str,
    until: Option<String>,
    digests: Vec<(Arc<str>, Digest)>,
) -> Result<Response, EdgeError> {
    let is_in = |name: &str| name >= from && until.as_deref().is_none_or(|until| name < until);
    let documents: Vec<_> = scope.documents(snapshot)?.into_iter().filter(|(_, name)| is_in(name)).collect();
    let own: BTreeMap<_, _> = digest::of_documents(snapshot, scope, documents, true).collect::<Result<_, _>>()?;
    let theirs: BTreeMap<_, _> = digests.into_iter().collect();
    let names: BTreeSet<_> = own.keys().chain(theirs.keys()).filter(|name| scope.has(name)).collect();
    let mut documents: Vec<_> = names.into_iter().filter(|name| own.get(*name) != theirs.get(*name)).map(ToString::to_string).collect();
    let next = documents.get(NAMES_MAX).cloned();
    documents.truncate(NAMES_MAX);
    Ok(Response::Differ { documents, until: next.or(until) })
}

/// Which buckets of a document differ.
pub(super) fn buckets(snapshot: &Snapshot<'_>, scope: Scope<'_>, document: &str, digests: &[Digest]) -> Result<Response, EdgeError> {
    let own = digest::of_named(snapshot, document, scope, true)?;
    if digests.len() != own.len() {
        return Err(EdgeError::invalid(format!("{} digests of buckets came, not {}", digests.len(), own.len())));
    }
    let different = own.iter().zip(digests).enumerate().filter(|(_, (own, theirs))| own != theirs);
    Ok(Response::DifferentBuckets { mask: different.fold(0, |mask, (bucket, _)| mask | (1 << bucket)) })
}

/// Tells rows that a replica lacks or has otherwise, and asks for those that this hub lacks or has otherwise. Returns also the keys whose
/// deletion was forgotten before this hub was set back.
pub(super) fn keys(
    snapshot: &Snapshot<'_>,
    scope: Scope<'_>,
    lineage: &Lineage,
    epoch: Epoch,
    request: Keys,
) -> Result<(Different, Vec<String>), EdgeError> {
    let Keys { document, bucket, from, until, rows: theirs, lost } = request;
    let known: HashMap<_, _> = theirs.iter().enumerate().map(|(index, known)| ((known.key.as_str(), &known.slot[..]), index)).collect();
    let mut deleted = Vec::new();
    let mut seen = vec![false; theirs.len()];
    let feed = last_position(snapshot)?;
    let reach = |(known, position): &(Epoch, Position)| lineage.reach(*known, feed).filter(|end| position <= end).map(|_| *position);
    let mut writer = RowsWriter::default();
    let mut end = until;
    let mut wanted = Vec::new();
    let is_seen = |key: &str| digest::bucket(key) == bucket && scope.sees(&document, key);
    if let Some(head) = snapshot.head(&document)?.filter(|_| scope.has(&document)) {
        snapshot.each_row_of(head.id, &from, is_seen, |key, slot, stored| {
            if end.as_deref().is_some_and(|until| key >= until) {
                return Ok(false);
            }
            let bytes = record::slot_bytes(&slot);
            let theirs_at = known.get(&(key, &bytes[..])).copied();
            if let Some(index) = theirs_at {
                seen[index] = true;
                if theirs[index].digest == digest::of_row(key, &slot, &stored.row) {
                    return Ok(true);
                }
                // What this hub has given a position it knows: its own row is what became of it.
                let is_known = theirs[index].positions.iter().any(|position| reach(position).is_some());
                if !theirs[index].is_unsent && !is_known && slot != Slot::Floor {
                    wanted.push(index);
                }
            }
            let position = stored.seq.ok_or_else(|| damaged("feed"))?;
            let given_in = lineage.epoch_at(position).unwrap_or(epoch);
            // What the replica had applied and lacks was deleted, and the deletion forgotten, before this hub was set back.
            let was_applied = lost.is_some_and(|(known, applied)| lineage.reach(known, feed).unwrap_or(0).min(applied) >= position);
            if theirs_at.is_none() && was_applied && slot == Slot::Register && !stored.row.is_dead() {
                deleted.push(key.to_owned());
                return Ok(true);
            }
            let mut row = stored.row;
            row.place(given_in, position);
            if !writer.add(&document, key, &slot, &row) {
                // A key of more rows than a frame holds is told in part.
                end = Some(if key == from { format!("{key}\0") } else { key.to_owned() });
                return Ok(false);
            }
            Ok(true)
        })?;
    }
    let is_in = |index: &usize| end.as_deref().is_none_or(|end| theirs[*index].key.as_str() < end);
    let mut different = Different {
        rows: Rows::default(),
        wanted: wanted.into_iter().filter(is_in).map(to_u32).collect(),
        gone: Vec::new(),
        until: end.clone(),
    };
    for index in (0..theirs.len()).filter(|index| !seen[*index] && !theirs[*index].is_unsent).filter(is_in) {
        let Known { key, slot, positions, .. } = &theirs[index];
        if !scope.sees(&document, key) {
            continue;
        }
        // What this hub had and has no more was deleted, and the deletion forgotten. A floor is the hub's alone.
        let was_forgotten = *slot == record::slot_bytes(&Slot::Floor) || positions.iter().any(|position| reach(position).is_some());
        if was_forgotten { &mut different.gone } else { &mut different.wanted }.push(to_u32(index));
    }
    different.rows = writer.finish();
    Ok((different, deleted))
}
