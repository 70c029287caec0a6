//! `/v1/nodes/{id}` of a node itself: its owner may have it hold what it runs.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
};
use edgeward::{EdgeError, ErrorKind, Node};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Refusal,
    hub::nodes::{CHANGE_BYTES_MAX, HoldBody, NodePath},
    read_body, wire,
};

/// What may be changed of a node at the node.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnChange {
    /// Whether it takes what its hub deploys anew.
    hold: HoldBody,
}

/// Whether a node takes what its hub deploys anew.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Held {
    id: String,
    /// Why it takes nothing now; none when it does.
    held: Option<String>,
}

/// Has this node take nothing that its hub deploys anew, or take it again. What it runs goes on.
#[utoipa::path(
    patch, path = "/v1/nodes/{id}", operation_id = "change_node", tag = "nodes", params(NodePath), request_body = OwnChange,
    responses((status = 200, body = Held), (status = 400, body = wire::Problem), (status = 404, body = wire::Problem))
)]
pub(crate) async fn change(
    State(node): State<Arc<Node>>,
    Path(NodePath { id }): Path<NodePath>,
    request: Request,
) -> Result<Json<Held>, Refusal> {
    let own = &node.runtime().node().id;
    if id != own.as_str() {
        let message = format!("node not found: `{}`; this is node `{own}`, and the hub of its fleet knows others", id.escape_debug());
        return Err(EdgeError::new(ErrorKind::NotFound, message).into());
    }
    let body = read_body(request, CHANGE_BYTES_MAX).await?;
    let change: OwnChange = serde_json::from_slice(&body.bytes).map_err(|error| {
        EdgeError::invalid(format!("the change of node `{own}` is not valid: {error}; labels and draining are changed at its hub"))
    })?;
    node.set_veto(change.hold.veto()?).await?;
    Ok(Json(Held { id, held: node.held() }))
}
