//! Backups of the data folder of a node or hub: made while that runs, and restored as a whole.
//!
//! A backup is a folder with the store of one moment, the log of topics after it, the artifacts that its functions and assignments refer to, what makes it a member or
//! the hub of a fleet, and a manifest with the digest of each file. Like a restored data folder, it is made beside its place, for its owner
//! alone, and put there when it is complete and on disk.

mod create;
mod manifest;
mod restore;
mod staging;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use edgeward_durable::{disk_error, remove};
use edgeward_model::{Digest, EdgeError, FunctionId, NodeId};
use edgeward_sync::{Documents, Epoch, Role, Store};

use crate::{
    assignments::Assignments,
    deployments,
    desired::{self, record::FunctionRecord},
    last_good::LastGood,
};

pub use create::create;
pub use manifest::{FileDigest, Manifest};
pub use restore::{Restored, restore};

/// What a backup or restore does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It copies the documents.
    Documents,
    /// It copies the messages of topics.
    Topics,
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

/// The artifacts that a store refers to.
struct Referred {
    /// Those of the node's own functions, with one of these. Without them it is not what it was.
    own: BTreeMap<Digest, FunctionId>,
    /// Those that are assigned to any node, belong to a revision of a deployment, or served here last. One that is assigned to this node may still be
    /// on its way to it.
    assigned: BTreeSet<Digest>,
}

/// What the store in this folder, which is nobody's yet, refers to. Opening it shows that this release can.
fn referred_in(documents: &Path, node: &NodeId) -> Result<Referred, EdgeError> {
    let store = Documents::new(Store::open_as_it_is(documents, node.clone(), Epoch::draw()?, Role::Replica)?);
    let own = desired::records_in(&store)?.into_iter();
    let own = own.filter_map(|record| Some((record.function.handler.artifact()?, record.function.id))).collect();
    let (deployments, good) = (deployments::Store::new(&store)?, LastGood::open(&store)?);
    let good: Vec<_> = good.records().values().flat_map(FunctionRecord::artifacts).collect();
    let assigned = Assignments::new(store).artifacts()?.into_iter().chain(deployments.artifacts()?).chain(good).collect();
    let lock = documents.join("documents.lock");
    remove(&lock).map_err(|error| disk_error("remove the lock of a copy", &lock, error))?;
    Ok(Referred { own, assigned })
}
