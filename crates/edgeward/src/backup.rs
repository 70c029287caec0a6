//! Backups of a node's data folder: made while the node runs, and restored as a whole.
//!
//! A backup is a folder with the store of one moment, the artifacts that its functions refer to, and a manifest with the digest of
//! each file. Like a restored data folder, it is made beside its place, and put there when it is complete and on disk.

mod create;
mod manifest;
mod restore;
mod staging;

use std::path::Path;

use edgeward_durable::{disk_error, remove};
use edgeward_model::{EdgeError, NodeId};
use edgeward_sync::{Documents, Epoch, Role, Store};

use crate::desired::{self, record::FunctionRecord};

pub use create::create;
pub use manifest::{FileDigest, Manifest};
pub use restore::{Restored, restore};

/// What a backup or restore does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It copies the documents.
    Documents,
    /// It copies the artifacts.
    Artifacts,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub step: Step,
    /// Bytes that are copied.
    pub done_bytes: u64,
    /// Bytes of all that the step copies.
    pub total_bytes: u64,
}

/// The functions' records in the store of this folder, which is nobody's yet. Opening it shows that this release can.
fn records_in(documents: &Path, node: &NodeId) -> Result<Vec<FunctionRecord>, EdgeError> {
    let store = Store::open_as_it_is(documents, node.clone(), Epoch::draw()?, Role::Replica)?;
    let records = desired::records_in(&Documents::new(store))?;
    let lock = documents.join("documents.lock");
    remove(&lock).map_err(|error| disk_error("remove the lock of a copy", &lock, error))?;
    Ok(records)
}
