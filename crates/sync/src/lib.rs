//! Documents that survive and converge. `docs/sync-protocol.md` is the contract: its words are the names here.
//!
//! What is decided here is pure: time, positions and what a writer saw are arguments.

pub mod causality;
pub mod clock;
mod magnitude;
pub mod row;

pub use causality::{Base, Dot, Epoch, Lineage, Position};
pub use clock::{Clock, Stamp};
pub use row::{Body, Policy, Row, Slot};
