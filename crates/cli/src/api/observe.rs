//! What the node tells of itself: metrics, status, health.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use edgeward::{
    EdgeError, EdgeNode, ErrorKind, Filter, Node,
    cluster::nats::CredentialState,
    telemetry::{self, Reading, resident_bytes},
};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, FunctionsListen, Refusal,
    wire::{FleetAnswer, StatusAnswer},
};
use crate::node_process::Membership;

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct SummaryQuery {
    /// Only this function.
    function: Option<String>,
    /// Only this node.
    node: Option<String>,
}

/// What ran so far: totals, success rate in percent, durations in milliseconds, errors by kind.
#[utoipa::path(get, path = "/v1/metrics/summary", tag = "metrics", params(SummaryQuery), responses((status = 200, body = Object)))]
pub(crate) async fn summary(State(node): State<Arc<Node>>, Query(query): Query<SummaryQuery>) -> impl IntoResponse {
    let filter = Filter { function_id: query.function.as_deref(), node_id: query.node.as_deref() };
    Json(node.runtime().metrics().summary(filter))
}

/// The node and its process.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = StatusAnswer)))]
pub(crate) async fn status(
    State(node): State<Arc<Node>>,
    State(api): State<Api>,
    State(at): State<FunctionsListen>,
    State(membership): State<Option<Arc<Membership>>>,
) -> Json<StatusAnswer> {
    let runtime = node.runtime();
    // This answer is the node's report.
    let described = EdgeNode { last_heartbeat: Timestamp::now(), ..runtime.node().clone() };
    Json(StatusAnswer {
        node: described,
        version: env!("CARGO_PKG_VERSION"),
        started_at: api.started_at,
        uptime_seconds: api.started.elapsed().as_secs(),
        listen: api.listen.clone(),
        functions_listen: at.0.to_string(),
        data_dir: node.data_dir().display().to_string(),
        disk_free_bytes: rustix::fs::statvfs(node.data_dir()).ok().map(|disk| disk.f_bavail * disk.f_frsize),
        functions: node.functions().len(),
        running: runtime.running(),
        resident_bytes: resident_bytes(),
        fleet: membership.map(|membership| fleet(&membership)),
    })
}

/// How a member stands to its fleet.
fn fleet(Membership { link, uplink }: &Membership) -> FleetAnswer {
    let connection = link.backbone().connection().borrow().clone();
    let replication = uplink.replication().borrow().clone();
    let outbox = uplink.outbox();
    FleetAnswer {
        connected: connection.is_up,
        documents: replication.state.as_str(),
        synced_at: replication.synced_at,
        why: match &*link.credentials().borrow() {
            CredentialState::Refused { why } => Some(why.clone()),
            CredentialState::Stale { why, .. } if connection.is_up => Some(why.clone()),
            _ => connection.why_down.or(replication.error),
        },
        refused: matches!(*link.credentials().borrow(), CredentialState::Refused { .. }),
        // Of a store that cannot be read nothing is known to wait.
        waiting_events: outbox.len().unwrap_or(0),
        dropped_events: outbox.dropped(),
        topics: uplink.topics().borrow().clone(),
    }
}

/// What this node measures, as its membership has it too.
pub(crate) async fn readings(node: &Arc<Node>, membership: Option<&Membership>, started: Instant) -> Vec<Reading> {
    let connection = membership.map(|membership| membership.link.backbone().connection().borrow().clone());
    let membership = membership.map(|membership| &membership.uplink).zip(connection.as_ref());
    telemetry::node_readings(node, membership, started).await
}

/// The text format of Prometheus.
pub(super) fn as_text(readings: &[Reading]) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::text(readings))
}

/// What the node measures, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn prometheus(
    State(node): State<Arc<Node>>,
    State(api): State<Api>,
    State(membership): State<Option<Arc<Membership>>>,
) -> impl IntoResponse {
    as_text(&readings(&node, membership.as_deref(), api.started).await)
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "node", responses((status = 200)))]
pub(crate) async fn livez() -> StatusCode {
    StatusCode::OK
}

/// Every desired function has been looked at since the start.
#[utoipa::path(get, path = "/readyz", tag = "node", responses((status = 200), (status = 503, body = super::wire::Problem)))]
pub(crate) async fn readyz(State(node): State<Arc<Node>>, State(api): State<Api>) -> Result<StatusCode, Refusal> {
    if api.stop.is_cancelled() {
        return Err(EdgeError::new(ErrorKind::Unavailable, "the node is stopping").into());
    }
    if node.is_ready() {
        Ok(StatusCode::OK)
    } else {
        Err(EdgeError::new(ErrorKind::Unavailable, "the node is still starting its functions").into())
    }
}
