//! What the hub has each node run by itself, in the hub's documents: one document for each node, a key for each schedule.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_model::{DocumentName, EdgeError, NodeId, ScheduleId};
use edgeward_sync::{Documents, Precondition};

use super::record::ScheduleRecord;

/// How the names of these documents begin; the id of the node follows.
pub(crate) const PREFIX: &str = "edgeward.schedules.";

/// The documents.
#[derive(Clone, Debug)]
pub(super) struct AssignedSchedules {
    documents: Documents,
}

impl AssignedSchedules {
    pub(super) fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The nodes that have, or had, any.
    pub(super) fn nodes(&self) -> Result<Vec<NodeId>, EdgeError> {
        let documents = self.documents.list()?.into_iter();
        Ok(documents.filter_map(|info| info.name.as_str().strip_prefix(PREFIX).and_then(|id| NodeId::new(id).ok())).collect())
    }

    /// The schedules of a node with their generations; 0 for what cannot be read, which is written anew. What has no name of a schedule is passed over: a
    /// node may write anything there.
    pub(super) fn of(&self, node: &NodeId) -> Result<BTreeMap<ScheduleId, u64>, EdgeError> {
        let entries = self.documents.document(name(node)?).entries("")?.into_iter();
        let generation = |(key, value): (String, _)| {
            let generation = ScheduleRecord::of_value(&key, &value).map_or(0, |record| record.generation);
            let id = ScheduleId::new(key).inspect_err(|error| {
                tracing::warn!(%node, error = error.chain(), "what a node says it was assigned is no schedule");
            });
            Some((id.ok()?, generation))
        };
        Ok(entries.filter_map(generation).collect())
    }

    /// Whether a node has a schedule.
    pub(super) fn has(&self, node: &NodeId, id: &str) -> Result<bool, EdgeError> {
        Ok(self.documents.document(name(node)?).get(id)?.is_some())
    }

    /// Gives a node these, and takes those from it.
    pub(super) fn change(&self, node: &NodeId, come: &[Arc<ScheduleRecord>], go: &[ScheduleId]) -> Result<(), EdgeError> {
        let values = come.iter().map(|record| Ok((record.schedule.id.clone(), record.to_value()?)));
        let (values, go) = (values.collect::<Result<Vec<_>, EdgeError>>()?, go.to_vec());
        self.documents.document(name(node)?).edit(Precondition::None, move |draft| {
            values.iter().try_for_each(|(id, value)| draft.set(id.as_str(), value))?;
            go.iter().try_for_each(|id| draft.remove(id.as_str()))
        })?;
        Ok(())
    }
}

fn name(node: &NodeId) -> Result<DocumentName, EdgeError> {
    DocumentName::new(format!("{PREFIX}{node}"))
}
