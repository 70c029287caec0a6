//! The audit log: who was refused, who made or revoked a token, who changed which keys are trusted, and who retried or discarded
//! dead letters. Its lines have the tracing target `audit`.
//!
//! Who may not call can still make us write, so lines about them are bounded. Their number is told instead.

use std::{net::SocketAddr, time::Instant};

use axum::http::Method;
use edgeward::{EdgeError, LineLimit, NodeId, PublicKey, TokenName, access::Caller};
use parking_lot::Mutex;

/// The target of the audit log.
const TARGET: &str = "audit";
/// Who calls a listener that trusts this machine.
const LOOPBACK: &str = "(loopback)";

/// The audit log of one listener.
#[derive(Debug, Default)]
pub(crate) struct Audit(Mutex<LineLimit>);

/// A call that was refused.
pub(super) struct Refused<'a> {
    pub(super) peer: Option<SocketAddr>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) why: &'a EdgeError,
}

impl Audit {
    pub(super) fn refused(&self, Refused { peer, method, path, why }: Refused<'_>) {
        let Some(dropped) = self.0.lock().admit(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: TARGET, dropped, "more calls were refused than this log tells");
        }
        let peer = peer.map(|peer| peer.to_string());
        tracing::warn!(target: TARGET, peer, %method, path, kind = why.kind().as_str(), why = %why, "refused a call");
    }
}

/// Tells who made or revoked a token. Only who may do that is told of, so nothing bounds it.
pub(super) fn token_changed(what: &str, name: &TokenName, role: Option<&str>, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::info!(target: TARGET, token = %name, role, by, "{what} a token");
}

/// Tells who removed a node.
pub(super) fn node_removed(node: &str, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::info!(target: TARGET, node, by, "removed a node");
}

/// Tells who made a join token.
pub(super) fn join_token_created(id: &NodeId, node: Option<&NodeId>, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::info!(target: TARGET, join_token = %id, node = node.map(NodeId::as_str), by, "made a join token");
}

/// Tells who changed which keys the fleet trusts.
pub(super) fn trust_changed(what: &str, key: &PublicKey, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::info!(target: TARGET, %key, by, "the fleet {what}");
}

/// Tells who began an experiment, or stopped it.
pub(super) fn experiment(what: &str, id: &str, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::warn!(target: TARGET, experiment = id, by, "{what} an experiment");
}

/// Tells who had a dead letter tried again, or removed it; of a hub, on which node.
pub(super) fn dead_letter(what: &str, id: u64, node: Option<&str>, caller: Option<&Caller>) {
    let by = caller.map_or(LOOPBACK, |caller| caller.token.name.as_str());
    tracing::info!(target: TARGET, dead_letter = id, node, by, "{what}");
}
