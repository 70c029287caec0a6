//! Documents that survive and converge. `docs/sync-protocol.md` is the contract: its words are the names here.
//!
//! What is decided here is pure: time, positions and what a writer saw are arguments.

pub mod causality;
pub mod clock;
pub mod document;
mod error;
mod magnitude;
mod merge_patch;
pub mod pending;
pub mod row;
pub mod store;
pub mod synchronizer;
pub mod transaction;

pub use causality::{Base, Dot, Epoch, Lineage, Position};
pub use clock::{Clock, Stamp};
pub use document::{Document, DocumentInfo, Documents, Draft, Edited, Precondition};
pub use pending::PendingChange;
pub use row::{Body, Policy, Row, Slot};
pub use store::Store;
pub use synchronizer::EdgeSynchronizer;
