//! What the hub has each node do, in the hub's documents: one document for each node, a key for each.

use std::{borrow::Borrow, collections::BTreeMap, sync::Arc};

use edgeward_model::{DocumentName, EdgeError, NodeId};
use edgeward_sync::{Documents, Precondition};

use super::{
    Allotted,
    record::{self, Record},
};

/// The name of a node's document.
pub(super) fn name<T: Allotted>(node: &NodeId) -> Result<DocumentName, EdgeError> {
    DocumentName::new(format!("{}{node}", prefix::<T>()))
}

fn prefix<T: Allotted>() -> String {
    format!("edgeward.{}s.", T::KIND)
}

/// The nodes that have, or had, any, with the versions of their documents.
pub(super) fn versions<T: Allotted>(documents: &Documents) -> Result<Vec<(NodeId, u64)>, EdgeError> {
    let (prefix, documents) = (prefix::<T>(), documents.list()?.into_iter());
    let node = |name: &DocumentName| NodeId::new(name.as_str().strip_prefix(&prefix)?).ok();
    Ok(documents.filter_map(|info| Some((node(&info.name)?, info.version))).collect())
}

/// What a node has, with the generations; 0 for what cannot be read, which is written anew. What has no name of its kind is passed over: a node may
/// write anything there.
pub(super) fn of<T: Allotted>(documents: &Documents, node: &NodeId) -> Result<BTreeMap<T::Id, u64>, EdgeError> {
    let entries = documents.document(name::<T>(node)?).entries("")?.into_iter();
    let generation = |(key, value): (String, _)| {
        let generation = record::of_value::<T>(&key, &value).map_or(0, |record| record.generation);
        let id = key.parse::<T::Id>().inspect_err(|error| {
            tracing::warn!(%node, error = error.chain(), "what a node says it was assigned is no {}", T::KIND);
        });
        Some((id.ok()?, generation))
    };
    Ok(entries.filter_map(generation).collect())
}

/// Whether a node has one.
pub(super) fn has<T: Allotted>(documents: &Documents, node: &NodeId, id: &str) -> Result<bool, EdgeError> {
    Ok(documents.document(name::<T>(node)?).get(id)?.is_some())
}

/// Gives a node these, and takes those from it.
pub(super) fn change<T: Allotted>(documents: &Documents, node: &NodeId, come: &[Arc<Record<T>>], go: &[T::Id]) -> Result<(), EdgeError> {
    let values = come.iter().map(|record| Ok((record.wanted.id().clone(), record::to_value(record)?)));
    let (values, go) = (values.collect::<Result<Vec<_>, EdgeError>>()?, go.to_vec());
    documents.document(name::<T>(node)?).edit(Precondition::None, move |draft| {
        values.iter().try_for_each(|(id, value)| draft.set(id.borrow(), value))?;
        go.iter().try_for_each(|id| draft.remove(id.borrow()))
    })?;
    Ok(())
}
