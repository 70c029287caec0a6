//! What is wanted of the nodes of a fleet, in the hub's document of its kind.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Precondition as DocumentPrecondition};

use super::{
    Allotted, documents, not_found,
    record::{self, Record, Records},
};
use crate::{desired::Precondition, fleet::EdgeCluster};

/// So often a change is tried again when others change one of the kind at the same time.
const TRIES: u32 = 100;

/// The record of a kind, and the nodes that have it.
type Placed<T> = (Record<T>, BTreeSet<NodeId>);

/// Makes this, which was checked, the one of its id, durably. Returns whether its id is new.
///
/// # Errors
/// [`ErrorKind::Conflict`] when the precondition does not hold, [`ErrorKind::TooLarge`] when there are as many as may be.
pub(crate) async fn put<T: Allotted>(cluster: &EdgeCluster, wanted: T, precondition: Precondition) -> Result<bool, EdgeError> {
    let of = cluster.clone();
    let created = blocking(move || {
        change::<T, _>(&of, |document, version, records| {
            let before = records.get(wanted.id().borrow());
            precondition.check(|| format!("{} `{}`", T::KIND, wanted.id()), before.map(|record| record.generation))?;
            if before.is_none() && records.len() >= T::MAX {
                let message = format!("this fleet has {} {}s, which is the most; remove one first", T::MAX, T::KIND);
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            let since = before.map_or(version + 1, |before| before.since);
            let record = Record { generation: version + 1, since, wanted: wanted.clone() };
            let (id, value) = (wanted.id().clone(), record::to_value(&record)?);
            let edited = document.edit(at(version), move |draft| draft.set(id.borrow(), &value));
            Ok(edited.map(|_| before.is_none()))
        })
    })
    .await?;
    cluster.wake_steering();
    Ok(created)
}

/// One of a kind.
pub(crate) async fn get<T: Allotted>(cluster: &EdgeCluster, id: &str) -> Result<Placed<T>, EdgeError> {
    let (of, id) = (cluster.clone(), id.to_owned());
    blocking(move || {
        let id: T::Id = id.parse().map_err(|_| not_found::<T>(&id))?;
        let id: &str = id.borrow();
        let value = document::<T>(&of)?.get(id)?.ok_or_else(|| not_found::<T>(id))?;
        let mut nodes = BTreeSet::new();
        for (node, _) in documents::versions::<T>(of.documents())? {
            if documents::has::<T>(of.documents(), &node, id)? {
                nodes.insert(node);
            }
        }
        Ok((record::of_value(id, &value)?, nodes))
    })
    .await
}

/// All of a kind, by id.
pub(crate) async fn list<T: Allotted>(cluster: &EdgeCluster) -> Result<Vec<Placed<T>>, EdgeError> {
    let of = cluster.clone();
    blocking(move || {
        let (_, records) = record::read::<T>(&document::<T>(&of)?)?;
        let mut nodes: BTreeMap<T::Id, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, _) in documents::versions::<T>(of.documents())? {
            for id in documents::of::<T>(of.documents(), &node)?.into_keys() {
                nodes.entry(id).or_default().insert(node.clone());
            }
        }
        Ok(records.into_iter().map(|(id, record)| (Arc::unwrap_or_clone(record), nodes.remove(id.borrow()).unwrap_or_default())).collect())
    })
    .await
}

/// Removes one, durably; its nodes lose it when they hear of it. Returns whether there was one.
///
/// # Errors
/// [`ErrorKind::Conflict`] when the precondition does not hold.
pub(crate) async fn remove<T: Allotted>(cluster: &EdgeCluster, id: &T::Id, precondition: Precondition) -> Result<bool, EdgeError> {
    let (of, id) = (cluster.clone(), id.clone());
    let existed = blocking(move || {
        change::<T, _>(&of, |document, version, records| {
            let found = records.get(id.borrow());
            precondition.check(|| format!("{} `{id}`", T::KIND), found.map(|record| record.generation))?;
            if found.is_none() {
                return Ok(Ok(false));
            }
            let id = id.clone();
            Ok(document.edit(at(version), move |draft| draft.remove(id.borrow())).map(|_| true))
        })
    })
    .await?;
    cluster.wake_steering();
    Ok(existed)
}

/// The hub's document of a kind.
pub(super) fn document<T: Allotted>(cluster: &EdgeCluster) -> Result<Document, EdgeError> {
    Ok(cluster.documents().document(DocumentName::new(format!("edgeward.hub.{}s", T::KIND))?))
}

/// Changes what is wanted by what is there now. Where somebody else changed it meanwhile, be it another of the kind, it is tried again: the inner error.
fn change<T: Allotted, R>(
    cluster: &EdgeCluster,
    change: impl Fn(&Document, u64, &Records<T>) -> Result<Result<R, EdgeError>, EdgeError>,
) -> Result<R, EdgeError> {
    let document = document::<T>(cluster)?;
    let mut tries = 0;
    loop {
        let (version, records) = record::read::<T>(&document)?;
        match change(&document, version, &records)? {
            Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => tries += 1,
            changed => return changed,
        }
    }
}

/// That nobody has changed the document since.
fn at(version: u64) -> DocumentPrecondition {
    if version == 0 { DocumentPrecondition::Absent } else { DocumentPrecondition::Version(version) }
}
