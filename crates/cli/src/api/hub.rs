//! The routes of a hub: its nodes, what each should run, at which times and for which messages, calls of far functions, events, the tokens by which nodes join, and the keys that they trust.

pub(crate) mod chaos;
pub(crate) mod deployments;
pub(crate) mod events;
pub(crate) mod functions;
pub(crate) mod join_tokens;
pub(crate) mod nodes;
pub(crate) mod observe;
pub(crate) mod routes;
pub(crate) mod schedules;
pub(crate) mod triggers;
pub(crate) mod trusted_keys;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, Request, State},
    http::StatusCode,
    response::IntoResponse,
};
use edgeward::{FleetHub, limits::ARTIFACT_BYTES_MAX};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Refusal, Shared, finish, read_body, shared_routes, wire::ArtifactAnswer};

/// What the routes of a hub have.
#[derive(Clone, FromRef)]
pub(crate) struct OfHub {
    api: Api,
    pub(in crate::api) hub: Arc<FleetHub>,
}

/// The routes of a hub.
pub(super) fn hub_routes() -> OpenApiRouter<OfHub> {
    shared_routes()
        .routes(routes!(upload))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show, nodes::label, nodes::remove))
        .routes(routes!(functions::list))
        .routes(routes!(functions::show, functions::put, functions::delete))
        .routes(routes!(functions::invoke))
        .routes(routes!(functions::logs))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::show, deployments::put, deployments::delete))
        .routes(routes!(deployments::diff))
        .routes(routes!(deployments::rollouts))
        .routes(routes!(deployments::rollout))
        .routes(routes!(deployments::act))
        .routes(routes!(deployments::rebalance))
        .routes(routes!(chaos::list, chaos::start))
        .routes(routes!(chaos::show))
        .routes(routes!(chaos::report))
        .routes(routes!(chaos::stop))
        .routes(routes!(chaos::scenarios))
        .routes(routes!(routes::list))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show, schedules::put, schedules::delete))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::history))
        .routes(routes!(triggers::list))
        .routes(routes!(triggers::show, triggers::put, triggers::delete))
        .routes(routes!(events::list))
        .routes(routes!(join_tokens::create))
        .routes(routes!(trusted_keys::list, trusted_keys::add))
        .routes(routes!(trusted_keys::remove))
        .routes(routes!(observe::summary))
        .routes(routes!(observe::status))
        .routes(routes!(observe::prometheus))
        .routes(routes!(observe::readyz))
}

/// Everything that the API of a hub answers. The description is served at `/openapi.json`.
pub(crate) fn hub_router(shared: Shared, hub: Arc<FleetHub>) -> Router {
    let api = Api(Arc::new(shared));
    finish(hub_routes, |routes| routes, OfHub { api: api.clone(), hub }, &api, |_| None)
}

/// Stores an artifact for the nodes of the fleet, which fetch it once it is assigned to them.
#[utoipa::path(
    post, path = "/v1/artifacts", operation_id = "upload_artifact", tag = "artifacts",
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 201, body = ArtifactAnswer),
        (status = 413, description = "It is too large.", body = super::wire::Problem),
        (status = 422, description = "It cannot run, and why.", body = super::wire::Problem),
    )
)]
pub(crate) async fn upload(State(hub): State<Arc<FleetHub>>, request: Request) -> Result<impl IntoResponse, Refusal> {
    let body = read_body(request, ARTIFACT_BYTES_MAX).await?;
    let size_bytes = body.bytes.len();
    let digest = hub.cluster().add_artifact(body.bytes.clone()).await?.to_string();
    Ok((StatusCode::CREATED, Json(ArtifactAnswer { digest, size_bytes })))
}
