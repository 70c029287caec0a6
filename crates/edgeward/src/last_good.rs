//! What a node ran last of what its hub assigned: it serves when the newest assignment cannot, or must not yet, be taken after a start.
//!
//! It is the document `edgeward.local.good` of the node, which never leaves it.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use edgeward_model::{DocumentName, EdgeError, FunctionId};
use edgeward_sync::{Document, Documents, Precondition, policy::LOCAL_PREFIX};

use crate::desired::record::FunctionRecord;

/// The document, and what it holds. Changing it blocks until it is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct LastGood {
    document: Document,
    records: Arc<ArcSwap<BTreeMap<FunctionId, FunctionRecord>>>,
}

impl LastGood {
    pub(crate) fn open(documents: &Documents) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}good"))?);
        let mut records = BTreeMap::new();
        for (key, value) in document.view()?.map(|state| state.data.0).unwrap_or_default() {
            match FunctionRecord::of_value(&key, &value) {
                Ok(record) => drop(records.insert(record.function.id.clone(), record)),
                // The node runs without it, as before its first assignment.
                Err(error) => tracing::warn!(function = key, error = error.chain(), "what served last could not be read"),
            }
        }
        Ok(Self { document, records: Arc::new(ArcSwap::from_pointee(records)) })
    }

    /// The records, by id.
    pub(crate) fn records(&self) -> Arc<BTreeMap<FunctionId, FunctionRecord>> {
        self.records.load_full()
    }

    /// Makes these the records.
    pub(crate) fn keep(&self, records: BTreeMap<FunctionId, FunctionRecord>) -> Result<(), EdgeError> {
        let known = self.records();
        let mut written = Vec::new();
        for (id, record) in &records {
            if known.get(id) != Some(record) {
                written.push((id.to_string(), record.to_value()?));
            }
        }
        let gone: Vec<_> = known.keys().filter(|id| !records.contains_key(*id)).map(ToString::to_string).collect();
        if written.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.document.edit(Precondition::None, move |draft| {
            written.iter().try_for_each(|(key, value)| draft.set(key, value))?;
            gone.iter().try_for_each(|key| draft.remove(key))
        })?;
        self.records.store(Arc::new(records));
        Ok(())
    }
}
