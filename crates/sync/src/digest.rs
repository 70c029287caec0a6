//! Digests of a document, by which two replicas find where they differ: of all of it, of 64 buckets of its keys, of each row.

use edgeward_model::EdgeError;

use crate::{
    planted::{self, Bug},
    policy::LOCAL_PREFIX,
    record,
    row::{Body, Row, Slot},
    snapshot::{DocumentHead, Snapshot},
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
pub(crate) fn counts(slot: &Slot, stored: &Stored, is_hub: bool) -> bool {
    (is_hub || stored.seq.is_none()) && *slot != Slot::Floor
}

/// The digests of the buckets of the document of this name, which need not be there.
pub(crate) fn of_named(snapshot: &Snapshot<'_>, name: &str, is_hub: bool) -> Result<Vec<Digest>, EdgeError> {
    match snapshot.head(name)? {
        Some(head) => of_buckets(snapshot, &head, is_hub),
        None => Ok(vec![first(&blake3::Hasher::new().finalize()); usize::from(BUCKETS)]),
    }
}

fn of_buckets(snapshot: &Snapshot<'_>, head: &DocumentHead, is_hub: bool) -> Result<Vec<Digest>, EdgeError> {
    let mut hashers = vec![blake3::Hasher::new(); usize::from(BUCKETS)];
    snapshot.each_row(head, "", |key, slot, stored| {
        if counts(&slot, &stored, is_hub) {
            hashers[usize::from(bucket(key))].update(&of_row(key, &slot, &stored.row).to_le_bytes());
        }
        Ok(true)
    })?;
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

/// The documents that are compared, with their digests, by name.
pub(crate) fn of_documents(snapshot: &Snapshot<'_>, is_hub: bool) -> Result<Vec<(String, Digest)>, EdgeError> {
    let mut digests = Vec::new();
    for head in snapshot.heads()?.into_iter().filter(|head| !head.name.starts_with(LOCAL_PREFIX)) {
        if let Some(digest) = of_document(&of_buckets(snapshot, &head, is_hub)?) {
            digests.push((head.name.to_string(), digest));
        }
    }
    Ok(digests)
}

fn first(hash: &blake3::Hash) -> Digest {
    hash.as_bytes()[..16].try_into().expect("sixteen bytes")
}
