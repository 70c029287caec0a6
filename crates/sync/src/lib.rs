//! Documents that survive and converge. `docs/sync-protocol.md` is the contract: its words are the names here.
//!
//! What is decided here is pure: time, positions and what a writer saw are arguments.

pub mod access;
pub mod backup;
pub mod causality;
pub mod changes;
pub mod clock;
pub mod conflict;
mod digest;
pub mod document;
mod error;
#[cfg(test)]
mod fuzz;
pub mod hub;
pub mod interest;
mod magnitude;
mod merge;
mod merge_patch;
mod planted;
pub mod policy;
mod record;
pub mod replica;
mod replica_state;
pub mod row;
#[cfg(test)]
mod simulation;
pub mod snapshot;
pub mod store;
pub mod synchronizer;
mod takeover;
mod transaction;
mod view;
pub mod watch;
pub mod wire;

pub use causality::{Base, Dot, Epoch, Lineage, Position};
pub use changes::{Change, PendingChange};
pub use clock::{Clock, Stamp};
pub use conflict::{Conflict, ConflictsPage, Resolution, Side, Why};
pub use document::{Document, DocumentInfo, Documents, Draft, Edited, Precondition};
pub use hub::Hub;
pub use interest::Pattern;
pub use policy::{Policies, Policy};
pub use replica::{ReplicaSession, SessionState};
pub use replica_state::Role;
pub use row::{Body, Row, Slot};
pub use store::Store;
pub use synchronizer::EdgeSynchronizer;
pub use watch::Watch;
