//! `POST /v1/join-tokens`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use edgeward::{EdgeError, FleetHub, NodeId, access::Caller, cluster::nats::JoinToken, limits::JOIN_TOKEN_TTL_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{Refusal, audit, read_body, wire};

/// Largest description of a join token, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// A token by which one node joins.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinTokenBody {
    /// Only this node may join by it, also in place of one of its id; any new one when it is left out.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeId>,
    /// For how long it is good, 1 to 900 [default: 900].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in_seconds: Option<u64>,
}

impl JoinTokenBody {
    pub(crate) fn ttl(&self) -> Duration {
        self.expires_in_seconds.map_or(JOIN_TOKEN_TTL_MAX, Duration::from_secs)
    }
}

/// A join token, which is a secret until it was used or has ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct JoinTokenAnswer {
    token: String,
    #[schema(value_type = Option<String>)]
    node: Option<NodeId>,
    /// Where the node will look for the fleet.
    servers: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl JoinTokenAnswer {
    pub(crate) fn new(token: &JoinToken) -> Self {
        Self { token: token.text(), node: token.node().cloned(), servers: token.servers().to_vec(), expires_at: token.ends_at() }
    }
}

/// Makes a token by which one node may join, once.
#[utoipa::path(
    post, path = "/v1/join-tokens", operation_id = "create_join_token", tag = "nodes", request_body = JoinTokenBody,
    responses((status = 201, body = JoinTokenAnswer), (status = 400, body = wire::Problem))
)]
pub(crate) async fn create(
    State(hub): State<Arc<FleetHub>>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<impl IntoResponse, Refusal> {
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let body: JoinTokenBody = if body.bytes.is_empty() {
        JoinTokenBody::default()
    } else {
        serde_json::from_slice(&body.bytes)
            .map_err(|error| EdgeError::invalid(format!("the description of the join token is not valid: {error}")))?
    };
    let token = hub.join_token(body.node.clone(), body.ttl())?;
    audit::join_token_created(token.id(), body.node.as_ref(), caller.as_deref());
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(JoinTokenAnswer::new(&token))))
}
