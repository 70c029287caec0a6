//! The least counter that a signed function must have here, in a document that never leaves the node. It only grows, and outlasts the function.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use edgeward_model::{DocumentName, EdgeError, ErrorKind, FunctionId, limits::SIGNED_FUNCTIONS_MAX};
use edgeward_sync::{Document, Documents, Precondition, policy::LOCAL_PREFIX};
use parking_lot::Mutex;

use crate::stored;

/// The counters by function, kept in memory as well.
#[derive(Debug)]
pub(super) struct Floors {
    document: Document,
    known: ArcSwap<BTreeMap<FunctionId, u64>>,
    /// Held while a counter is raised.
    raising: Mutex<()>,
}

impl Floors {
    /// Reads the disk. A counter that cannot be read is an error: to go on without it would let an old image in.
    pub(super) fn open(documents: &Documents) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}counters"))?);
        let data = document.view()?.map(|state| state.data.0).unwrap_or_default();
        let known = data.iter().map(|(key, value)| Ok((FunctionId::new(key)?, stored::of_value(value, || counter_of(key))?)));
        let known = known.collect::<Result<BTreeMap<_, _>, EdgeError>>()?;
        Ok(Self { document, known: ArcSwap::from_pointee(known), raising: Mutex::default() })
    }

    /// Refuses what is older than was confirmed.
    pub(super) fn check(&self, function: &FunctionId, counter: u64) -> Result<(), EdgeError> {
        let known = self.known.load();
        match known.get(function) {
            Some(floor) if counter < *floor => {
                let why = format!(
                    "function `{function}` is signed with counter {counter}, and release {floor} ran here already: an old image is not run again; \
                     sign it with a counter of {floor} or more"
                );
                Err(EdgeError::new(ErrorKind::RefusedArtifact, why))
            }
            None if known.len() >= SIGNED_FUNCTIONS_MAX => {
                let why = format!(
                    "this node keeps the counters of {SIGNED_FUNCTIONS_MAX} functions, which is the most; use an id that ran here before"
                );
                Err(EdgeError::new(ErrorKind::TooLarge, why))
            }
            _ => Ok(()),
        }
    }

    /// Raises the floor of a function to this counter, durably; one that is as high stays.
    pub(super) fn raise(&self, function: &FunctionId, counter: u64) -> Result<(), EdgeError> {
        let _raising = self.raising.lock();
        let known = self.known.load();
        if known.get(function).is_some_and(|floor| *floor >= counter) {
            return Ok(());
        }
        let (key, value) = (function.to_string(), stored::to_value(&counter)?);
        self.document.edit(Precondition::None, move |draft| draft.set(&key, &value))?;
        let mut raised = BTreeMap::clone(&known);
        raised.insert(function.clone(), counter);
        self.known.store(Arc::new(raised));
        Ok(())
    }
}

fn counter_of(function: &str) -> String {
    format!("the counter of function `{function}`")
}
