//! Digests of a document, by which two replicas find where they differ: of all of it, of 64 buckets of its keys, of each row.

use std::sync::Arc;

use edgeward_model::EdgeError;

use crate::{
    interest::Scope,
    planted::{self, Bug},
    record,
    row::{Body, Row, Slot},
    snapshot::Snapshot,
    view::Stored,
    wire::Digest,
};

const BUCKETS: u8 = 64;

/// The bucket of a key.
pub(crate) fn bucket(key: &str) -> u8 {
    blake3::hash(key.as_bytes()).as_bytes()[0] % BUCKETS
}

/// The digest of a row, without its positions and without what a join may take from either side.
pub(crate) fn of_row(key: &str, slot: &Slot, row: &Row) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(key.as_bytes());
    part(&record::slot_bytes(slot));
    let named = |part: &mut dyn FnMut(&[u8])| {
        part(row.origin.dot.node.as_str().as_bytes());
        part(&row.origin.dot.epoch.0.to_le_bytes());
        part(&row.origin.dot.counter.to_le_bytes());
        part(&row.stamp.bits().to_le_bytes());
    };
    match &row.body {
        Body::Register(register) => {
            named(&mut part);
            part(register.value.as_deref().unwrap_or_default().as_bytes());
            part(register.raw.as_deref().unwrap_or_default());
        }
        Body::Counter(subtotal) => {
            named(&mut part);
            part(&subtotal.sum.to_le_bytes());
        }
        Body::Member(membership) => {
            let added = membership.added.as_ref();
            part(&added.map_or(0, |added| added.counter).to_le_bytes());
            part(&membership.removed.to_le_bytes());
            part(&membership.live().map_or(0, |added| added.stamp.bits()).to_le_bytes());
            part(added.map_or("", |added| &added.value).as_bytes());
        }
        Body::Floor(position) => part(&position.to_le_bytes()),
    }
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
}

/// Whether a row is compared: a hub has all, a replica leaves out its outbox.
pub(crate) fn counts(stored: &Stored, is_hub: bool) -> bool {
    is_hub || stored.seq.is_none()
}

/// The digests of the buckets of the document of this name, which need not be there.
pub(crate) fn of_named(snapshot: &Snapshot<'_>, name: &str, scope: Scope<'_>, is_hub: bool) -> Result<Vec<Digest>, EdgeError> {
    match snapshot.head(name)? {
        Some(head) => of_buckets(snapshot, head.id, name, scope, is_hub),
        None => Ok(vec![first(&blake3::Hasher::new().finalize()); usize::from(BUCKETS)]),
    }
}

fn of_buckets(snapshot: &Snapshot<'_>, id: i64, name: &str, scope: Scope<'_>, is_hub: bool) -> Result<Vec<Digest>, EdgeError> {
    let mut hashers = vec![blake3::Hasher::new(); usize::from(BUCKETS)];
    snapshot.each_row_of(
        id,
        "",
        |key| scope.sees(name, key),
        |key, slot, stored| {
            if counts(&stored, is_hub) {
                hashers[usize::from(bucket(key))].update(&of_row(key, &slot, &stored.row).to_le_bytes());
            }
            Ok(true)
        },
    )?;
    let digests = hashers
        .iter()
        .enumerate()
        .map(|(bucket, hasher)| if planted::has(Bug::DigestSkipsBucket) && bucket % 2 == 0 { [0; 16] } else { first(&hasher.finalize()) });
    Ok(digests.collect())
}

/// The digest of a document out of those of its buckets; none when there is nothing to compare.
pub(crate) fn of_document(buckets: &[Digest]) -> Option<Digest> {
    let empty = first(&blake3::Hasher::new().finalize());
    if buckets.iter().all(|digest| *digest == empty) {
        return None;
    }
    Some(first(&blake3::hash(&buckets.concat())))
}

/// The digests of these documents, by name; of one that has nothing to compare there is none.
pub(crate) fn of_documents<'a>(
    snapshot: &'a Snapshot<'_>,
    scope: Scope<'a>,
    documents: Vec<(i64, Arc<str>)>,
    is_hub: bool,
) -> impl Iterator<Item = Result<(Arc<str>, Digest), EdgeError>> + 'a {
    documents.into_iter().filter_map(move |(id, name)| {
        let digest = of_buckets(snapshot, id, &name, scope, is_hub).map(|buckets| of_document(&buckets));
        digest.transpose().map(|digest| digest.map(|digest| (name, digest)))
    })
}

fn first(hash: &blake3::Hash) -> Digest {
    hash.as_bytes()[..16].try_into().expect("sixteen bytes")
}
