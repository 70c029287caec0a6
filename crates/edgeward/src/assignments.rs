//! What each node should run, in the hub's documents: one document for each node, a key for each function. The hub believes only what it wrote.

mod seals;

use std::{collections::HashSet, sync::Arc};

use edgeward_model::{Digest, DocumentName, EdgeError, EdgeFunction, ErrorKind, FunctionId, NodeId, Value};
use edgeward_sync::{Document, Documents, Precondition, Watch};
use parking_lot::Mutex;

use self::seals::SealKey;
use crate::desired::record::{FunctionRecord, RevisionRecord};

/// How the names of these documents begin; the id of the node follows.
pub(crate) const PREFIX: &str = "edgeward.assignments.";

/// What is written of a function, which may be unreadable by itself, as that of a newer release.
pub(crate) type Written = Result<FunctionRecord, EdgeError>;

#[derive(Clone, Debug)]
pub(crate) struct Assignments {
    documents: Documents,
    /// Of a hub: held while the key of its seals is made. None on a node, which has what it has from its hub.
    sealing: Option<Arc<Mutex<()>>>,
}

impl Assignments {
    /// On a node.
    pub(crate) fn new(documents: Documents) -> Self {
        Self { documents, sealing: None }
    }

    /// On a hub, which believes what it wrote, and all as long as it wrote nothing.
    pub(crate) fn of_hub(documents: Documents) -> Self {
        Self { documents, sealing: Some(Arc::default()) }
    }

    fn document(&self, node: &NodeId) -> Result<Document, EdgeError> {
        Ok(self.documents.document(DocumentName::new(format!("{PREFIX}{node}"))?))
    }

    /// What a node should run, by id.
    pub(crate) fn of(&self, node: &NodeId) -> Result<Vec<EdgeFunction>, EdgeError> {
        self.records(node)?.into_iter().map(|(_, record)| record.map(|record| record.function)).collect()
    }

    /// The records of what a node should run, by id.
    pub(crate) fn records(&self, node: &NodeId) -> Result<Vec<(String, Written)>, EdgeError> {
        let (key, mut written) = (self.key()?, Vec::new());
        for (function, value) in self.document(node)?.entries("")? {
            if is_believed(key, node, &value)? {
                let record = FunctionRecord::of_value(&function, &value);
                written.push((function, record));
            } else {
                tracing::warn!(target: "audit", %node, function, "a node says that it was assigned what this fleet did not assign; it is not believed");
            }
        }
        Ok(written)
    }

    /// What a node should run under this id; none also for what cannot be read.
    pub(crate) fn record(&self, node: &NodeId, function: &FunctionId) -> Result<Option<FunctionRecord>, EdgeError> {
        let Some(value) = self.document(node)?.get(function.as_str())? else { return Ok(None) };
        if !is_believed(self.key()?, node, &value)? {
            return Ok(None);
        }
        Ok(FunctionRecord::of_value(function.as_str(), &value).ok())
    }

    /// The key of what a hub wrote; none on a node, and where a hub wrote nothing.
    fn key(&self) -> Result<Option<SealKey>, EdgeError> {
        if self.sealing.is_some() { SealKey::read(&self.documents) } else { Ok(None) }
    }

    /// The same for a hub that is about to write. The first one seals what there is: it was believed until then.
    fn key_for_writing(&self) -> Result<Option<SealKey>, EdgeError> {
        let Some(sealing) = &self.sealing else { return Ok(None) };
        if let Some(key) = SealKey::read(&self.documents)? {
            return Ok(Some(key));
        }
        let _one = sealing.lock();
        if let Some(key) = SealKey::read(&self.documents)? {
            return Ok(Some(key));
        }
        let key = SealKey::draw()?;
        for info in self.documents.list()? {
            let Some(node) = info.name.as_str().strip_prefix(PREFIX).and_then(|id| NodeId::new(id).ok()) else { continue };
            let document = self.document(&node)?;
            let entries = document.entries("")?.into_iter();
            let sealed: Vec<_> =
                entries.map(|(function, value)| Ok((function, key.seal(&node, value)?))).collect::<Result<_, EdgeError>>()?;
            document.edit(Precondition::None, move |draft| sealed.iter().try_for_each(|(function, value)| draft.set(function, value)))?;
        }
        // Last: what a crash leaves is believed as before.
        key.write(&self.documents)?;
        Ok(Some(key))
    }

    /// Tells when something is assigned to a node or taken from it.
    pub(crate) fn watch(&self, node: &NodeId) -> Result<Watch, EdgeError> {
        Ok(self.document(node)?.watch())
    }

    /// Whether a function of this node has this artifact.
    pub(crate) fn need(&self, node: &NodeId, digest: &Digest) -> Result<bool, EdgeError> {
        let records = self.records(node)?;
        Ok(records.iter().any(|(_, record)| record.as_ref().is_ok_and(|record| record.artifacts().any(|needed| needed == *digest))))
    }

    /// Assigns a function, in place of an earlier one of its id. Returns what is written, with its generation.
    pub(crate) fn put(
        &self,
        node: &NodeId,
        function: &EdgeFunction,
        deployed: Option<RevisionRecord>,
    ) -> Result<FunctionRecord, EdgeError> {
        let seal = self.key_for_writing()?;
        let document = self.document(node)?;
        let generation = document.info()?.map_or(0, |info| info.version) + 1;
        let record = FunctionRecord { generation, function: function.clone(), deployed: deployed.map(Box::new) };
        let (key, value) = (function.id.to_string(), record.to_value()?);
        let value = if let Some(seal) = seal { seal.seal(node, value)? } else { value };
        document.edit(Precondition::None, move |draft| draft.set(&key, &value))?;
        Ok(record)
    }

    /// Takes a function from a node; returns whether it was assigned.
    pub(crate) fn remove(&self, node: &NodeId, function: &FunctionId) -> Result<bool, EdgeError> {
        let key = function.to_string();
        let document = self.document(node)?;
        match document.edit(Precondition::Present, move |draft| draft.remove(&key)) {
            Ok(edited) => Ok(edited.changed),
            Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets what a node was assigned.
    pub(crate) fn forget(&self, node: &NodeId) -> Result<(), EdgeError> {
        let document = self.document(node)?;
        if let Some(state) = document.view()? {
            let keys: Vec<_> = state.data.0.into_keys().collect();
            document.edit(Precondition::None, move |draft| keys.iter().try_for_each(|key| draft.remove(key)))?;
        }
        Ok(())
    }

    /// The artifacts that are assigned to any node.
    pub(crate) fn artifacts(&self) -> Result<HashSet<Digest>, EdgeError> {
        let mut artifacts = HashSet::new();
        for info in self.documents.list()? {
            let Some(node) = info.name.as_str().strip_prefix(PREFIX) else { continue };
            let records = self.records(&NodeId::new(node)?)?;
            // What cannot be read here is of a newer release, which keeps its artifacts itself.
            artifacts.extend(
                records.into_iter().filter_map(|(_, record)| record.ok()).flat_map(|record| record.artifacts().collect::<Vec<_>>()),
            );
        }
        Ok(artifacts)
    }

    /// How many functions are assigned, over all nodes.
    pub(crate) fn len(&self) -> Result<usize, EdgeError> {
        let of_nodes = self.documents.list()?.into_iter().filter(|info| info.name.as_str().starts_with(PREFIX));
        Ok(of_nodes.map(|info| usize::try_from(info.keys).unwrap_or(usize::MAX)).sum())
    }
}

fn is_believed(key: Option<SealKey>, node: &NodeId, value: &Value) -> Result<bool, EdgeError> {
    key.map_or(Ok(true), |key| key.has_sealed(node, value))
}
