//! What a hub tells of itself: status, metrics, health.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::IntoResponse,
};
use edgeward::{
    ClusterHealth, EdgeError, ErrorKind, FleetHub, HubStanding, Summary, blocking,
    cluster::nats::CredentialState,
    telemetry::{self, resident_bytes},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{Api, Refusal, observe::as_text, wire};

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct SummaryQuery {
    /// The node that is asked.
    node: Option<String>,
    /// Refused, as a node tells a hub of all its functions together.
    function: Option<String>,
}

/// What ran on a node so far: totals, success rate in percent, durations in milliseconds, errors by kind.
#[utoipa::path(
    get, path = "/v1/metrics/summary", operation_id = "node_summary", tag = "metrics", params(SummaryQuery),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem), (status = 503, body = wire::Problem))
)]
pub(crate) async fn summary(State(hub): State<Arc<FleetHub>>, Query(query): Query<SummaryQuery>) -> Result<Json<Summary>, Refusal> {
    let node = query.node.ok_or_else(|| EdgeError::invalid("say of which node: `node=ID`"))?;
    if query.function.is_some() {
        return Err(EdgeError::invalid("a hub tells of a node as a whole: leave out `function`, or ask the node itself").into());
    }
    hub.check_active()?;
    Ok(Json(hub.cluster().runtime(&node)?.summary().await?))
}

/// A hub and its process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubStatusAnswer {
    hub: String,
    /// `active`, `standby` or `waiting`.
    standing: &'static str,
    /// Of the lease, when somebody has it.
    term: Option<u64>,
    /// Who has the lease, or why nobody is known to.
    why: Option<String>,
    /// Where nodes reach the fleet.
    servers: Vec<String>,
    /// Whether it reaches those servers.
    connected: bool,
    /// Why its credentials are of no use; none while they are.
    credentials: Option<String>,
    /// The process of its own broker.
    broker_pid: Option<u32>,
    #[schema(value_type = Object)]
    health: ClusterHealth,
    version: &'static str,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    uptime_seconds: u64,
    listen: String,
    data_dir: String,
    disk_free_bytes: Option<u64>,
    resident_bytes: Option<u64>,
}

/// The hub and its process.
#[utoipa::path(get, path = "/v1/status", operation_id = "hub_status", tag = "hub", responses((status = 200, body = HubStatusAnswer)))]
pub(crate) async fn status(State(hub): State<Arc<FleetHub>>, State(api): State<Api>) -> Result<Json<HubStatusAnswer>, Refusal> {
    let (standing, term, why) = match hub.standing().borrow().clone() {
        HubStanding::Active { term } => ("active", Some(term), None),
        HubStanding::Standby { holder, term } => ("standby", Some(term), Some(format!("hub `{holder}` is the active one"))),
        HubStanding::Waiting { why } => ("waiting", None, Some(why)),
    };
    let credentials = match hub.credentials() {
        CredentialState::Valid { .. } => None,
        CredentialState::Stale { why, .. } | CredentialState::Refused { why } => Some(why),
    };
    let cluster = hub.cluster().clone();
    let health = blocking(move || Ok(cluster.health())).await?;
    Ok(Json(HubStatusAnswer {
        hub: hub.cluster().id().to_string(),
        standing,
        term,
        why,
        servers: hub.servers().to_vec(),
        connected: hub.backbone().connection().borrow().is_up,
        credentials,
        broker_pid: hub.broker_pid(),
        health,
        version: env!("CARGO_PKG_VERSION"),
        started_at: api.started_at,
        uptime_seconds: api.started.elapsed().as_secs(),
        listen: api.listen.clone(),
        data_dir: hub.data_dir().display().to_string(),
        disk_free_bytes: rustix::fs::statvfs(hub.data_dir()).ok().map(|disk| disk.f_bavail * disk.f_frsize),
        resident_bytes: resident_bytes(),
    }))
}

/// What the hub measures, in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "hub_prometheus", tag = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(crate) async fn prometheus(State(hub): State<Arc<FleetHub>>, State(api): State<Api>) -> impl IntoResponse {
    as_text(&telemetry::hub_readings(&hub, api.started).await)
}

/// The hub is the active one, or stands by.
#[utoipa::path(
    get, path = "/readyz", operation_id = "hub_ready", tag = "hub",
    responses((status = 200), (status = 503, body = wire::Problem))
)]
pub(crate) async fn readyz(State(hub): State<Arc<FleetHub>>, State(api): State<Api>) -> Result<StatusCode, Refusal> {
    if api.stop.is_cancelled() {
        return Err(EdgeError::new(ErrorKind::Unavailable, "the hub is stopping").into());
    }
    match &*hub.standing().borrow() {
        HubStanding::Waiting { why } => Err(EdgeError::new(ErrorKind::Unavailable, format!("the hub does not serve: {why}")).into()),
        HubStanding::Standby { .. } | HubStanding::Active { .. } => Ok(StatusCode::OK),
    }
}
