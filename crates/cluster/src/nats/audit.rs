//! The audit log of the fleet: who was refused, and who joined. Its lines have the tracing target `audit`.
//!
//! Who is refused can still make us write, so lines about them are bounded. Their number is told instead.

use std::time::Instant;

use edgeward_model::{EdgeError, LineLimit, NodeId};
use parking_lot::Mutex;

const TARGET: &str = "audit";

#[derive(Debug, Default)]
pub(super) struct Audit(Mutex<LineLimit>);

impl Audit {
    /// `asked_as` is the id that NATS vouches for: a node's, or a join token's.
    pub(super) fn refused(&self, asked_as: &NodeId, what: &str, why: &EdgeError) {
        self.line(|| tracing::warn!(target: TARGET, asked_as = %asked_as, what, kind = why.kind().as_str(), why = %why, "refused a node"));
    }

    /// What the broker refused, in its own words.
    pub(super) fn broker_refused(&self, said: &str) {
        self.line(|| tracing::warn!(target: TARGET, said, "the NATS server refused a member"));
    }

    fn line(&self, write: impl FnOnce()) {
        let Some(dropped) = self.0.lock().admit(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: TARGET, dropped, "more was refused than this log tells");
        }
        write();
    }
}

/// Tells who joined. Only who has a join token can, so nothing bounds it.
pub(super) fn joined(node: &NodeId, join_id: &NodeId, public_key: &str) {
    tracing::info!(target: TARGET, node = %node, join_id = %join_id, public_key, "a node joined");
}
