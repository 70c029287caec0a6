//! `/v1/nodes`: the nodes of the fleet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::StatusCode,
};
use edgeward::{EdgeError, EdgeNodeStatus, FleetHub, NodeView, Veto, access::Caller, blocking};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{Refusal, audit, read_body, wire};

/// Largest change of a node, in bytes.
pub(crate) const CHANGE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct NodePath {
    /// The node.
    pub(crate) id: String,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct NodesQuery {
    /// Only those of this status: `online`, `degraded`, `syncing` or `offline`.
    #[param(value_type = Option<String>)]
    status: Option<EdgeNodeStatus>,
}

/// Nodes with all that is known of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodesAnswer {
    /// Id, name, location, capabilities, labels and metadata as the node says; `status`, `since`, `reasons`, `connectivity`, `behind`,
    /// `last_heartbeat`, `load`, `dropped_events`, `draining`, `held`, `release` and `joined_at` as the hub knows.
    #[schema(value_type = Vec<Object>)]
    nodes: Vec<NodeView>,
}

/// What is to change of a node.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeChange {
    /// Labels to set; `null` removes one that was set here, and the node's own shows again.
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    /// Whether functions of which there are to be so many go elsewhere.
    draining: Option<bool>,
    /// Whether it gets no updates.
    hold: Option<HoldBody>,
}

/// Whether a node takes what is deployed anew. What it runs goes on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldBody {
    /// Whether it takes nothing.
    held: bool,
    /// Why, for people.
    #[serde(default)]
    reason: String,
    /// For how long; until it is taken back when it is not said.
    seconds: Option<u64>,
}

impl HoldBody {
    /// What it says; none when nothing is held.
    pub(crate) fn veto(self) -> Result<Option<Veto>, EdgeError> {
        self.held.then(|| Veto::new(self.reason, self.seconds.map(Duration::from_secs), Timestamp::now())).transpose()
    }
}

/// Every node, by id.
#[utoipa::path(
    get, path = "/v1/nodes", operation_id = "list_nodes", tag = "nodes", params(NodesQuery),
    responses((status = 200, body = NodesAnswer), (status = 400, body = wire::Problem))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>, Query(query): Query<NodesQuery>) -> Result<Json<NodesAnswer>, Refusal> {
    let cluster = hub.cluster().clone();
    let nodes = blocking(move || Ok(cluster.view_nodes(query.status))).await?;
    Ok(Json(NodesAnswer { nodes }))
}

/// One node.
#[utoipa::path(
    get, path = "/v1/nodes/{id}", operation_id = "show_node", tag = "nodes", params(NodePath),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(State(hub): State<Arc<FleetHub>>, Path(NodePath { id }): Path<NodePath>) -> Result<Json<NodeView>, Refusal> {
    view(&hub, id).await
}

async fn view(hub: &FleetHub, id: String) -> Result<Json<NodeView>, Refusal> {
    let cluster = hub.cluster().clone();
    let (found, id) = blocking(move || Ok((cluster.view_node(&id), id))).await?;
    found.map(Json).ok_or_else(|| EdgeError::node_not_found(&id).into())
}

/// Changes the labels of a node, drains it, or lets it hold what it runs.
#[utoipa::path(
    patch, path = "/v1/nodes/{id}", operation_id = "change_node", tag = "nodes", params(NodePath), request_body = NodeChange,
    responses((status = 200, body = Object), (status = 400, body = wire::Problem), (status = 404, body = wire::Problem))
)]
pub(crate) async fn label(
    State(hub): State<Arc<FleetHub>>,
    Path(NodePath { id }): Path<NodePath>,
    request: Request,
) -> Result<Json<NodeView>, Refusal> {
    let body = read_body(request, CHANGE_BYTES_MAX).await?;
    let change: NodeChange = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the change of node `{}` is not valid: {error}", id.escape_debug())))?;
    hub.check_active()?;
    let (cluster, wanted) = (hub.cluster().clone(), id.clone());
    let veto = change.hold.map(HoldBody::veto).transpose()?;
    blocking(move || {
        if !change.labels.is_empty() {
            cluster.label_node(&wanted, change.labels)?;
        }
        if let Some(draining) = change.draining {
            cluster.drain_node(&wanted, draining)?;
        }
        veto.map_or(Ok(()), |veto| cluster.hold_node(&wanted, veto))
    })
    .await?;
    view(&hub, id).await
}

/// Removes a node: its credentials end, what it was assigned is forgotten, and it is refused from now on.
#[utoipa::path(
    delete, path = "/v1/nodes/{id}", operation_id = "remove_node", tag = "nodes", params(NodePath),
    responses((status = 204), (status = 404, body = wire::Problem), (status = 503, body = wire::Problem))
)]
pub(crate) async fn remove(
    State(hub): State<Arc<FleetHub>>,
    caller: Option<Extension<Caller>>,
    Path(NodePath { id }): Path<NodePath>,
) -> Result<StatusCode, Refusal> {
    if !hub.remove_node(&id).await? {
        return Err(EdgeError::node_not_found(&id).into());
    }
    audit::node_removed(&id, caller.as_deref());
    Ok(StatusCode::NO_CONTENT)
}
